"""A run of a sweep on several devices: processes that train together, fail together and never stay behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
from scisci.data.library import open_dataset
from scisci.tasks.processes import together
from scisci.tasks.run import execute
from scisci.tasks.several import train_in_processes
from scisci.tasks.version import code_version

# What a process of the tests does: all wait, one does what `{act}` says.
PART = """
import os, subprocess, sys, time
from pathlib import Path
from scisci.contracts.errors import UserError
from scisci.tasks.processes import taking_part
here = Path({here!r})
def act():
    child = subprocess.Popen(["sleep", "600"])
    rank = os.environ["LOCAL_RANK"]
    (here / (rank + ".tmp")).write_text(f"{{os.getpid()}} {{child.pid}}")
    (here / (rank + ".tmp")).rename(here / (rank + ".pids"))
    while len(list(here.glob("*.pids"))) < 2:
        time.sleep(0.01)
    if rank == "1":
        {act}
    time.sleep(600)
taking_part(act)
"""


def part(here: Path, act: str) -> list[str]:
    return [sys.executable, "-c", PART.format(here=str(here), act=act)]


def started(here: Path) -> list[int]:
    return [int(pid) for path in here.glob("*.pids") for pid in path.read_text().split()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in status(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes stay behind"
        time.sleep(0.02)


def status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ"


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        ("raise UserError('give another')", UserError, "^give another$"),
        ("raise ZeroDivisionError('by nought' + chr(10) + 'and more')", RuntimeError, "^ZeroDivisionError: by nought$"),
        ("raise RuntimeError('DefaultCPUAllocator: no more')", MemoryError, "DefaultCPUAllocator: no more"),
        ("raise OSError(28, 'No space left on device')", OSError, "^.Errno 28. .*No space left on device$"),
        ("os._exit(28)", OSError, "No space left on device"),
        ("os.kill(os.getpid(), 9)", RuntimeError, "^process 2 of 2 was ended by SIGKILL$"),
        ("os._exit(3)", RuntimeError, "^process 2 of 2 ended with exit code 3$"),
    ],
)
def test_a_failure_ends_all_and_is_told(tmp_path: Path, act: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        together(part(tmp_path, act), 2, tmp_path / "out", {})
    pids = started(tmp_path)
    assert len(pids) == 4
    wait_until_gone(pids)
    shown = (tmp_path / "out/1.txt").read_text()
    assert ("Traceback" in shown) == act.startswith("raise")


def test_processes_that_end_well_leave_what_they_said(tmp_path: Path) -> None:
    together(
        [sys.executable, "-c", "import os; print(os.environ['LOCAL_RANK'], os.environ['A'])"],
        2,
        tmp_path / "o",
        {"A": "b"},
    )
    assert [(tmp_path / f"o/{rank}.txt").read_text() for rank in (0, 1)] == ["0 b\n", "1 b\n"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, sent: signal.Signals) -> None:
    call = f"together({part(tmp_path, 'pass')!r}, 2, Path({str(tmp_path / 'out')!r}), {{}})"
    script = f"from pathlib import Path\nfrom scisci.tasks.processes import together\n{call}"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as parent:
        while len(pids := started(tmp_path)) < 4:
            assert parent.poll() is None
            time.sleep(0.02)
        parent.send_signal(sent)
    wait_until_gone(pids)


def spec_for(store: Path, **changes: object) -> RunSpec:
    recipe = {"steps": 10, "learning_rate": 0.01, "batch_size": 16, "validations": 3} | changes
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=open_dataset(store).fingerprint,
        architecture="egnn",
        size="3k",
        data=72,
        seed=3,
        optimization=OptimizationSpec(**recipe),
        evaluation=EvaluationSpec(splits=("test", "ood_600K"), symmetry_samples=4, predictions=True),
        code_version=code_version(),
        loggers=({"class_path": "TensorBoardLogger", "init_args": {"save_dir": "."}},),
    )


@pytest.mark.slow
def test_two_processes_train_what_one_does(small_store: Path, tmp_path: Path) -> None:
    spec, folders = spec_for(small_store), [tmp_path / "one", tmp_path / "two"]
    for folder in (*folders, tmp_path / "scratch"):
        folder.mkdir()
    (folders[1] / "processes").mkdir()  # of an attempt that failed
    one = execute(spec, folders[0])
    two = train_in_processes(spec, folders[1], tmp_path / "scratch", "cpu", 2)
    assert two.device == f"2 x {one.device}"
    same = {"status", "params", "params_body", "flops_per_sample", "samples_seen", "unique_samples", "epochs"}
    same |= {"best_step", "learning_rate", "run", "domain"}
    assert one.model_dump(include=same) == two.model_dump(include=same)
    curves = [pd.read_parquet(folder / "curve.parquet") for folder in folders]
    pd.testing.assert_frame_equal(*curves, rtol=1e-5)
    weights, others = (load_file(folder / "model.safetensors") for folder in folders)
    for name, values in weights.items():
        np.testing.assert_allclose(others[name], values, rtol=1e-3, atol=1e-5)
    for split, found in one.splits.items():
        for name, metric in found.metrics.items():
            close = pytest.approx(metric.value, rel=1e-4, abs=1e-5 if "symmetry" in name else 0)
            assert two.splits[split].metrics[name].value == close
    # The same files, one tracker included; as a config of `scisci fit` it says what was done.
    left = [sorted(p.relative_to(f).parts[:2] for p in f.rglob("*") if "events" not in p.name) for f in folders]
    assert left[0] == left[1]
    assert len(list((folders[1] / "tensorboard/version_0").glob("events.*"))) == 1
    config = yaml.safe_load((folders[1] / "config.yaml").read_text())
    assert (config["trainer"]["devices"], config["data"]["batch_size"]) == (2, 8)


def test_what_cannot_be_shared_out_is_refused(small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batches of 16 samples cannot be shared out over 3 devices; give a multiple"):
        train_in_processes(spec_for(small_store), tmp_path, tmp_path, "cpu", 3)
    with pytest.raises(UserError, match=r"a run is to have 16 GPUs, of which \d are here; lower gpus"):
        execute(spec_for(small_store), tmp_path, gpus=16)
    assert list(tmp_path.iterdir()) == []
