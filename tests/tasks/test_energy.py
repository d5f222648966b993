"""Electricity by codecarbon itself: that it is recorded where asked for, and that nothing else comes of it."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.store import Store
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study
from scisci.tasks.cli import main
from scisci.tasks.energy import check_energy, metered
from scisci.tasks.run import execute
from scisci.tasks.version import code_version


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder and home, without a network; a configuration there asks for files and a server."""

    asked = []

    def refuse(*whom: Any) -> None:
        asked.append(whom)
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = "[codecarbon]\noutput_methods = csv,api\nemissions_endpoint = http://localhost:1/emissions\n"
    (tmp_path / ".codecarbon.config").write_text(config)
    yield tmp_path
    assert asked == []  # here, since the library goes on after any error


def test_what_is_measured_is_watts_of_a_computer_and_leaves_nothing(
    nowhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with metered(True) as found:
        start = time.perf_counter()
        while (seconds := time.perf_counter() - start) < 1.5:
            pass
        assert found == {}
    assert 0.5 < found["energy_kwh"] * 3.6e6 / seconds < 2000
    assert found["energy_method"].startswith("codecarbon ")
    assert "measured" in found["energy_method"] or "estimated" in found["energy_method"]
    assert [path.name for path in nowhere.iterdir()] == [".codecarbon.config"]
    assert capfd.readouterr() == ("", "")


def test_nothing_is_measured_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with metered(False) as found:
        pass
    assert found == {}


def test_without_the_library_the_extra_is_named_before_anything_is_done(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    study = {
        "study": "energetic",
        "dataset": str(small_store),
        "architectures": {"mpnn": {"sizes": ["3k"], "learning_rate": 0.003}},
        "data": [16],
        "optimization": {"steps": 2},
        "evaluation": {"splits": ["test"]},
        "energy": True,
    }
    for ask in (
        check_energy,
        lambda: make_plan(Study.model_validate(study)),
        lambda: main(["fit", f"--data.dataset={small_store}", f"--runs={tmp_path / 'runs'}", "--energy=true"]),
    ):
        with pytest.raises(UserError, match=r"scisci\[energy\]"):
            ask()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("store", "architecture", "size", "task"),
    [
        ("small_store", "mpnn", "3k", {}),
        ("series_store", "seasonal_naive", "0", {"context": 64, "horizon": 16}),
    ],
)
def test_a_run_has_its_energy_and_the_name_it_has_without(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, architecture: str, size: str, task: dict[str, int]
) -> None:
    path: Path = request.getfixturevalue(store)
    asked = RunSpec(
        study="test",
        dataset=str(path),
        fingerprint=Store(path).fingerprint,
        architecture=architecture,
        size=size,
        task=task,
        data=16,
        optimization=OptimizationSpec(steps=4, learning_rate=0.003, batch_size=8, validations=1),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=0),
        code_version=code_version(),
        energy=True,
    )
    without = asked.model_copy(update={"energy": False})
    assert asked.run == without.run
    assert RunSpec.model_validate_json(asked.model_dump_json(exclude={"energy"})).energy is False
    result, plain = execute(asked, tmp_path), execute(without, tmp_path)
    assert (result.splits, plain.energy_kwh, plain.energy_method) == (plain.splits, None, None)
    assert result.energy_kwh is not None
    assert result.energy_kwh > 0
    assert "codecarbon" in (result.energy_method or "")
    assert RunResult.model_validate_json(result.model_dump_json()) == result


def test_fit_records_the_energy_of_whole_trainings_alone(small_store: Path, tmp_path: Path) -> None:
    options = [
        *(f"--data.dataset={small_store}", f"--runs={tmp_path / 'runs'}", "--energy=true", "--data.train_samples=16"),
        *("--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"),
    ]
    main(["fit", *options])
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["energy_kwh"] > 0
    with pytest.raises(UserError, match="whole trainings on one device"):
        main(["fit", f"--run={run}", "--trainer.max_steps=6"])
    with pytest.raises(UserError, match="whole trainings on one device"):
        main(["fit", *options, "--trainer.devices=2"])
    main(["fit", f"--run={run}", "--trainer.max_steps=6", "--energy=false"])
    assert json.loads((run / "result.json").read_text())["energy_kwh"] is None
