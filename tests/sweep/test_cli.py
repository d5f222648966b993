"""`scisci sweep` as a person uses it, with the real training."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.sweep.cli import main
from scisci.sweep.planning import make_plan
from scisci.sweep.study import load_study

from .grid import DRIVER, carry_out, faulty, plan, study, wait_for

STUDIES = Path(__file__).parents[2] / "configs" / "studies"


@pytest.fixture
def study_file(small_store, tmp_path):
    content = study(
        study="small",
        dataset=str(small_store),
        architectures={"mpnn": {"sizes": ["3k"], "learning_rate": 0.01}},
        data=[32, 96],
        seeds=[0],
        optimization={"steps": 6, "batch_size": 8, "validations": 2},
        evaluation={"splits": ["test", "ood_600K"], "symmetry_samples": 4},
    )
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_from_plan_to_table(study_file, tmp_path, capsys):
    main(["plan", str(study_file), "--grid"])
    printed = capsys.readouterr().out
    assert "2 runs: 1 model × data 32, 96 × 1 seed" in printed
    assert "0.01" in printed

    out = tmp_path / "out"
    main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] mpnn 3k  data 32  seed 0  ")
    assert " s  ok" in lines[0]
    assert "left" in lines[0]
    assert lines[1].startswith("[2/2] mpnn 3k  data 96  seed 0  ")

    table = read_results(out / "results.parquet").to_pandas()
    assert lines[2:] == ["2 runs of small: 2 ok", f"{out / 'results.parquet'}: {len(table)} rows of 2 runs"]
    assert set(table.split) == {"test", "ood_600K"}
    assert set(table.data) == {32, 96}
    assert {"energy_mae", "force_mae"} <= set(table.metric)
    run = out / "runs" / table.run[0]
    assert {"spec.json", "curve.parquet", "model.safetensors", "model.json"} <= set(os.listdir(run))
    assert json.loads((run / "result.json").read_text())["params"] == table.params[0] > 1000

    main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    assert "[1/2]" not in capsys.readouterr().out
    main(["status", str(out)])
    assert "small: 2 of 2 runs done" in capsys.readouterr().out


def test_shards_are_collected_afterwards(study_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    main(["run", str(study_file), "--out", out, "--shard", "2/2"])
    assert "when all shards have ended: scisci sweep collect" in capsys.readouterr().out
    main(["collect", out])
    assert "1 planned runs are not done" in capsys.readouterr().out
    main(["status", out])
    printed = capsys.readouterr().out
    assert "small: 1 of 2 runs done" in printed
    assert "of work left on one worker" in printed
    main(["run", str(study_file), "--out", out, "--shard", "3/3"])
    assert "0 runs of small: none to do" in capsys.readouterr().out


def test_workers_need_processes(study_file, tmp_path):
    with pytest.raises(UserError, match="works in this process alone"):
        main(["run", str(study_file), "--out", str(tmp_path), "--engine", "inline", "--workers", "2"])
    with pytest.raises(UserError, match="add '--engine ray' to use --address"):
        main(["run", str(study_file), "--out", str(tmp_path), "--shard", "1/2", "--address", "auto"])


def test_what_a_budget_leaves_out_is_said(study_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    main(["run", str(study_file), "--out", out, "--engine", "inline", "--budget", "0.000001s"])
    printed = capsys.readouterr().out
    assert "2 runs left out: they would not end in time; the same command goes on with them" in printed
    assert "2 planned runs are not done" in printed


@pytest.mark.parametrize("span", ["2", "h", "two hours", "-1h", "0m"])
def test_impossible_budgets_are_refused(span, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "study.yaml", "--out", "out", f"--budget={span}"])
    assert f"argument --budget: {span!r} is no" in capsys.readouterr().err


def test_status_shows_why_runs_failed(tmp_path, capsys):
    sound = {"sizes": ["2"], "learning_rate": 0.1}
    grid = plan(architectures={"linear": sound, "bad": faulty(fault="raise")}, seeds=list(range(4)))
    log = carry_out(grid, tmp_path)
    main(["status", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "8 runs failed: ValueError: the matrix is singular" in printed
    failed = {o.job.spec.run for o in log.outcomes if o.result.status == "failed"}
    examples = [run for run in failed if run in printed]
    assert len(examples) == 3
    assert "16 of 16 runs done" in printed


def test_a_study_without_a_good_run_is_an_error(study_file, tmp_path, capsys):
    content = yaml.safe_load(study_file.read_text())
    content["architectures"]["mpnn"]["learning_rate"] = 1e30
    study_file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="no run ended well; see 'scisci sweep status"):
        main(["run", str(study_file), "--out", str(tmp_path / "out"), "--engine", "inline"])
    assert "diverged: the loss became" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_impossible_shards_are_refused(shard, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "study.yaml", "--out", "out", f"--shard={shard}"])
    assert "is not I/N with I from 1 to N, e.g. 2/8" in capsys.readouterr().err


def test_nothing_is_written_for_a_study_that_cannot_run(study_file, tmp_path):
    study_file.write_text(study_file.read_text().replace("3k", "4k"))
    with pytest.raises(UserError, match="unknown size of mpnn '4k'"):
        main(["run", str(study_file), "--out", str(tmp_path / "out"), "--engine", "inline"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no sweep in"):
        main(["status", str(tmp_path / "out")])


def test_a_terminal_gets_a_bar(tmp_path, workers_find_tests):
    sound = {"sizes": ["2"], "learning_rate": 0.1}
    grid = plan(architectures={"linear": sound, "bad": faulty(fault="raise")})
    grid.write(tmp_path)
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "140"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path), "inline"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b"".join(iter(lambda: read(ours), b"")).decode()
    os.close(ours)
    assert process.wait(20) == 0
    assert "8/8 runs" in shown
    assert "━" in shown
    assert "left" in shown
    assert shown.count("failed: ValueError: the matrix is singular") == 4
    assert "about to fail" not in shown


@pytest.fixture(params=["file", "unwritable"])
def no_folder(request, tmp_path):
    """A path that cannot become a folder."""
    if request.param == "unwritable":
        return Path("/proc/out")
    (tmp_path / "file.h5").write_bytes(b"\x89HDF")
    return tmp_path / "file.h5"


def test_an_out_that_cannot_be_written_is_one_sentence(study_file, no_folder):
    with pytest.raises(UserError, match=f"{no_folder}") as error:
        main(["run", str(study_file), "--out", str(no_folder), "--engine", "inline"])
    assert "\n" not in str(error.value)
    for command in ("status", "collect"):
        with pytest.raises(UserError, match="no sweep in"):
            main([command, str(no_folder)])


def test_records_that_cannot_be_made_are_one_sentence(study_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*runs: File exists; choose another place"):
        main(["run", str(study_file), "--out", str(tmp_path / "out"), "--engine", "inline"])


def test_ctrl_c_says_how_to_go_on(study_file, tmp_path):
    content = yaml.safe_load(study_file.read_text())
    content["optimization"] |= {"steps": 1_000_000, "validations": 100_000}
    study_file.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "scisci.cli", "sweep", "run", str(study_file), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--engine", "inline"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # the first checkpoint: Lightning is training, so the signal is Lightning's
        wait_for(lambda: process.poll() is not None or list(out.glob("runs/.*.partial/*/best*.ckpt")))
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, printed
    assert printed.strip() == f"interrupted; what is recorded in {out} stays, and the same command goes on from there"
    main(["status", str(out)])


def read(descriptor: int) -> bytes:
    """What a terminal shows next; nothing once the other side is closed (Linux then reports EIO)."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned(path, capsys, monkeypatch):
    # counting and timing all their models is what takes long; those of small studies are in test_costs
    monkeypatch.setattr("scisci.tasks.costs.flops_per_sample", lambda spec: 1e5)
    main(["plan", str(path), "--grid"])
    assert f"{len(make_plan(load_study(path)))} runs: " in capsys.readouterr().out
