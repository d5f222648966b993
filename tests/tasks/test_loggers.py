"""Trackers besides the CSV file: what they hold, where they write, and that a run does not depend on them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboardX.proto.event_pb2 import Event

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.tasks import loggers
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.cli import main
from scisci.tasks.run import execute

from .test_run import spec_for

TENSORBOARD = "{class_path: TensorBoardLogger, init_args: {save_dir: .}}"
NOWHERE = "{class_path: TensorBoardLogger, init_args: {save_dir: /proc/nowhere}}"


def fit(store: Path, runs: Path, *options: str) -> Path:
    main(
        [
            *("fit", f"--data.dataset={store}", f"--runs={runs}", "--model.architecture=mpnn", "--model.size=3k"),
            *("--data.test_splits=[test]", "--trainer.max_steps=20", "--trainer.val_check_interval=10"),
            *("--trainer.log_every_n_steps=2", "--trainer.enable_progress_bar=false", *options),
        ]
    )
    (folder,) = runs.iterdir()
    return folder


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of every metric: records of a length, its checksum, an event and its checksum."""
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                if not value.tag.startswith(("_hparams_", "hp_metric")):
                    yield value.tag, event.step, value.simple_value
            content = content[16 + length :]


def logged(folder: Path) -> set[tuple[str, int, float]]:
    table = pd.read_csv(folder / "log/version_0/metrics.csv").melt("step", var_name="name").dropna()
    return {(row["name"], int(row["step"]), float(np.float32(row["value"]))) for row in table.to_dict("records")}


def test_tensorboard_holds_what_the_csv_file_holds(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fit(small_store, tmp_path / "runs", f"--trainer.logger=[{TENSORBOARD}]")
    shown = set(events(folder / "tensorboard/version_0"))
    assert shown == logged(folder)
    names = {name for name, _, _ in shown}
    assert {"train/loss", "val/loss", "val/force_mae", "test/force_mae"} <= names
    assert sorted(step for name, step, _ in shown if name == "train/loss") == list(range(1, 20, 2))
    curve = pd.read_parquet(folder / "curve.parquet").set_index("step")["train/loss"].dropna()
    for name, step, value in shown:
        if name == "train/loss":
            assert value == pytest.approx(curve[step + 1], rel=1e-5)
    main(["test", "--run", str(folder), "--trainer.enable_progress_bar=false"])
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_a_run_goes_on_without_a_tracker_that_fails(small_store: Path, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="TensorBoardLogger failed and is left out from here on: .*/proc/nowhere"):
        folder = fit(small_store, tmp_path / "runs", f"--trainer.logger=[{NOWHERE}, {TENSORBOARD}]")
    assert RunResult.model_validate_json((folder / "result.json").read_text()).status == "ok"
    assert ("train/loss", 19) in {(name, step) for name, step, _ in logged(folder)}
    assert list(events(folder / "tensorboard/version_0"))


def test_a_training_that_fails_stays_failed_for_its_tracker(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(TensorBoardLogger, "finalize", lambda self, status: told.append(status))
    spec = spec_for(small_store, "mpnn", loggers=[{"class_path": "TensorBoardLogger", "init_args": {"save_dir": "."}}])
    monkeypatch.setattr(AtomisticTask, "training_step", lambda self, batch: batch.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        execute(spec, tmp_path)
    assert told == ["failed"]


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("WandbLogger", "WandbLogger needs the package no_such_package; install it or leave this logger out"),
        ("TensorBoardLogger", "TensorBoardLogger lacks save_dir, .*; give '.'"),
        ("TensorBordLogger", "TensorBordLogger"),
        (NOWHERE.replace("save_dir", "savedir"), "savedir"),
    ],
)
def test_a_logger_that_cannot_be_is_one_sentence_and_leaves_nothing(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str, message: str
) -> None:
    monkeypatch.setitem(loggers.MODULES, "WandbLogger", ("no_such_package",))
    with pytest.raises(UserError, match=message) as caught:
        fit(small_store, tmp_path / "runs", f"--trainer.logger={logger}")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
