"""A study over particles: the same engine, another task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.sweep.cli import main
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study


def study(store: Path, **recipe: Any) -> dict[str, Any]:
    return {
        "study": "particles",
        "dataset": str(store),
        "architectures": {
            "egnn": {"sizes": ["3k"], "learning_rate": 0.01},
            "mpnn": {"sizes": ["3k"], "learning_rate": 0.01, "treatment": "augmentation"},
        },
        "data": [64, 192],
        "optimization": {"steps": 8, "batch_size": 32, **recipe},
        "evaluation": {"splits": ["test", "ood_bodies8"], "symmetry_samples": 4},
    }


def test_study_of_particles_becomes_a_results_table(particle_store: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(study(particle_store)))
    main(["run", str(path), "--out", str(out), "--engine", "inline"])
    main(["collect", str(out)])
    table = read_results(out / "results.parquet").to_pandas()
    assert set(table["domain"]) == {"particles"}
    assert set(table["status"]) == {"ok"}
    errors = table[table["metric"] == "position_mse"].set_index(["architecture", "data", "split"])
    assert len(errors) == 2 * 2 * 2
    assert (errors["value"] > 0).all()
    assert errors.loc["mpnn", "treatment"].unique().tolist() == ["augmentation"]
    turned = table[table["metric"] == "symmetry_rotation_positions_float64"].groupby("architecture")["value"].max()
    assert turned["egnn"] < 1e-10 < 1e-3 < turned["mpnn"]


def test_weights_of_a_potentials_loss_are_refused(particle_store: Path) -> None:
    with pytest.raises(UserError, match="force_weight means nothing for data of the domain 'particles'"):
        make_plan(Study.model_validate(study(particle_store, force_weight=3.0)))
    with pytest.raises(UserError, match="compiled means nothing for data of the domain 'particles'"):
        make_plan(Study.model_validate(study(particle_store, compiled=True)))
