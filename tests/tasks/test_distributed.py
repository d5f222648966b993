"""Several processes, and batches in parts, train what one process does on the whole batch."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.tasks.cli import main

# Molecules of unequal sizes, so that means over atoms in parts of a batch are not that of the whole; forces are
# gradients, so that training differentiates twice; and EGNN has parameters without a gradient.
OPTIONS = (
    "--data.train_samples=72",
    "--data.test_splits=[test]",
    "--data.eval_batch_size=12",
    "--model.architecture=egnn",
    "--model.size=3k",
    "--model.symmetry_samples=4",
    "--model.symmetry_curve=4",
    "--trainer.max_steps=10",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)
# Two devices, each with two batches of four a step: the samples of a step are those of a batch of sixteen.
PARTS = ("--data.batch_size=4", "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=6")
MORTAL = """
import os, signal, sys
from scisci.data.sampling import TrainingBatches
turn, turns = TrainingBatches.turn, []
def mortal(self):
    turns.append(None)
    if len(turns) > {batches}:
        os.kill(os.getpid(), signal.SIGKILL)
    return turn(self)
TrainingBatches.turn = mortal
from scisci.cli import main
main()
"""


def arguments(store: Path, runs: Path, *options: str) -> list[str]:
    return ["fit", f"--data.dataset={store}", f"--runs={runs}", *OPTIONS, *options]


def free_port() -> int:
    """Not among the ports that the system hands out, of which one may be taken while processes start."""
    for port in random.sample(range(10000, 30000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("no port is free")


def start(*command: str) -> subprocess.CompletedProcess[str]:
    # Lightning leaves in the environment of this process that it is the first of one.
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "NODE_RANK")}
    environment = inherited | {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process on whole batches."""
    runs = tmp_path_factory.mktemp("whole")
    main(arguments(small_store, runs, "--data.batch_size=16", "--trainer.val_check_interval=3"))
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def shared(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes on parts of the same batches."""
    runs = tmp_path_factory.mktemp("shared")
    tracked = ("--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=.")
    found = start("-m", "scisci.cli", *arguments(small_store, runs, *PARTS, "--trainer.devices=2", *tracked))
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("run directory") == 1
    assert "Warning" not in found.stderr
    (folder,) = runs.iterdir()
    return folder


def result(run: Path) -> RunResult:
    return RunResult.model_validate_json((run / "result.json").read_text())


def assert_alike(run: Path, other: Path) -> None:
    curve, found = (pd.read_parquet(folder / "curve.parquet") for folder in (run, other))
    rounding = [name for name in curve if "symmetry" in name]
    pd.testing.assert_frame_equal(curve.drop(columns=rounding), found.drop(columns=rounding), rtol=1e-5)
    assert curve[rounding].count().equals(found[rounding].count())
    weights, others = (load_file(folder / "model.safetensors") for folder in (run, other))
    for name, values in weights.items():
        np.testing.assert_allclose(others[name], values, rtol=1e-3, atol=1e-5)
    ours, theirs = result(run), result(other)
    same = ("samples_seen", "unique_samples", "epochs", "params", "flops_per_sample", "best_step", "learning_rate")
    assert ours.model_dump(include=set(same)) == theirs.model_dump(include=set(same))
    for name, metric in ours.splits["test"].metrics.items():
        again = theirs.splits["test"].metrics[name]
        assert again.n == metric.n
        # The symmetry errors of an equivariant model are rounding errors.
        assert again.value == pytest.approx(metric.value, rel=1e-4, abs=1e-5 if "symmetry" in name else 0)


def test_accumulated_batches_are_the_batch_in_one_piece(small_store: Path, tmp_path: Path, whole: Path) -> None:
    parts = ("--data.batch_size=4", "--trainer.accumulate_grad_batches=4", "--trainer.val_check_interval=12")
    main(arguments(small_store, tmp_path, *parts))
    assert_alike(whole, *tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_train_what_one_does(whole: Path, shared: Path) -> None:
    assert_alike(whole, shared)
    assert len(list((shared / "log").iterdir())) == 1
    assert len(list((shared / "tensorboard/version_0").glob("events.*"))) == 1


@pytest.mark.slow
def test_two_killed_processes_go_on_where_they_were(small_store: Path, tmp_path: Path, shared: Path) -> None:
    script = tmp_path / "mortal.py"
    script.write_text(MORTAL.format(batches=9))
    killed = start(str(script), *arguments(small_store, tmp_path / "runs", *PARTS, "--trainer.devices=2"))
    assert killed.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists()
    found = start("-m", "scisci.cli", "fit", f"--run={folder}")
    assert found.returncode == 0, found.stderr
    assert (folder / "model.safetensors").read_bytes() == (shared / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(*(pd.read_parquet(run / "curve.parquet") for run in (folder, shared)))
    kept = [json.loads((run / "result.json").read_text())["splits"] for run in (folder, shared)]
    assert kept[0] == kept[1]
    # One process would have other batches in hand, and says so.
    with pytest.raises(UserError, match="finished at 10 steps"):
        main(["fit", f"--run={folder}"])
    with pytest.raises(UserError, match="begun with devices 2, not 1"):
        main(["fit", f"--run={folder}", "--trainer.devices=1", "--trainer.max_steps=12"])


TOO_FAST = ("--model.learning_rate=0.3", "--model.architecture=escaip", "--trainer.max_steps=40")
RUIN = [
    ("the loss became", ("--model.learning_rate=1e30", "--trainer.gradient_clip_val=1e30")),
    ("the loss rose", TOO_FAST),
    ("the loss rose", (*TOO_FAST, "--trainer.val_check_interval=100")),  # found by the validation after the last step
]


@pytest.mark.slow
@pytest.mark.parametrize(("reason", "ruin"), RUIN)
def test_diverged_processes_end_together(
    particle_store: Path, tmp_path: Path, reason: str, ruin: tuple[str, ...]
) -> None:
    options = (*PARTS, *ruin, "--trainer.devices=2")
    found = start("-m", "scisci.cli", *arguments(particle_store, tmp_path, *options))
    assert found.returncode == 2
    assert f"the run diverged: {reason}" in found.stderr
    assert "Traceback" not in found.stderr
    (folder,) = tmp_path.iterdir()
    assert result(folder).status == "diverged"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.strategy=ddp_spawn"], "ddp_spawn is not supported; give ddp or fsdp"),
        (["--trainer.strategy=fsdp"], "fsdp needs GPUs"),
        (["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"], "multiple of accumulate_grad"),
        (["--trainer.max_steps=-1"], "give max_steps or max_epochs"),
        (["--data.max_points=99", "--trainer.max_steps=-1", "--trainer.max_epochs=2"], "give max_steps and"),
        (["--data.max_points=99", "--data.max_edges=99"], "max_points and max_edges each say"),
        (["--data.max_points=0"], "max_points is 0"),
        (["--data.max_points=5"], "alone has .* above the 5"),
        (
            ["--trainer.accumulate_grad_batches=200", "--trainer.val_check_interval=200"],
            "72 training samples are too few",
        ),
    ],
)
def test_impossible_options_leave_nothing(small_store: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments(small_store, tmp_path / "runs", *options))
    assert not (tmp_path / "runs").exists()
