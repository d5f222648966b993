"""Crystals: stress is learned, measured, and asked for only where there is some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
from scisci.data.library import open_dataset
from scisci.tasks.run import execute
from scisci.tasks.version import code_version


def spec(store: Path, stress_weight: float) -> RunSpec:
    return RunSpec(
        study="stress",
        dataset=str(store),
        fingerprint=open_dataset(store).fingerprint,
        architecture="schnet",
        size="3k",
        data=64,
        seed=0,
        optimization=OptimizationSpec(
            steps=150, learning_rate=0.01, batch_size=8, validations=2, stress_weight=stress_weight
        ),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=0),
        code_version=code_version(),
    )


def test_stress_is_measured_and_its_weight_lowers_the_error(crystals: Path, tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 1000.0):
        (tmp_path / str(weight)).mkdir()
        result = execute(spec(crystals, weight), tmp_path / str(weight))
        assert result.status == "ok", result.reason
        found[weight] = result.splits["test"].metrics["stress_mae"].value
    store = open_dataset(crystals)
    stress = store.take(store.split("test").indices()).samples["stress"]
    zero = 1000 * np.abs(stress).mean()
    assert found[1000.0] < 0.5 * zero
    assert found[1000.0] < found[0.0]


def test_weight_on_stress_that_the_data_lack_is_refused(small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stress_weight needs data with stress"):
        execute(spec(small_store, 1.0), tmp_path)
