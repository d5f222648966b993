"""A study in which baselines stand beside a network: one plan, one results table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.data.samples import CloudSample
from scisci.data.writer import StoreWriter
from scisci.sweep.cli import main
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study

SIDE = 40.0


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points that move towards the middle of a cluster, which is where most of them are."""
    path, rng = tmp_path_factory.mktemp("clouds") / "clouds.h5", np.random.default_rng(0)
    with StoreWriter(path, "cloud") as writer:
        for name, count in (("train", 16), ("val", 6), ("test", 6)):
            members = []
            for k in range(count):
                middle = rng.uniform(0, SIDE, 3)
                offsets = rng.normal(0, 5, (40, 3))
                positions = np.mod(middle + offsets, SIDE)
                members.append(writer.append(CloudSample(positions, np.full(3, SIDE), -40 * offsets), f"{name} {k}"))
            writer.split(name, np.array(members), "none", disjoint=name != "train")
    return path


def study(store: Path, architectures: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "study": "baselines",
        "dataset": str(store),
        "architectures": architectures,
        "data": [4, 16],
        "optimization": {"steps": 3, "batch_size": 4},
        "evaluation": {"splits": ["val", "test"], "symmetry_samples": 2},
    } | changes


def test_baselines_and_networks_share_a_results_table(clouds: Path, tmp_path: Path) -> None:
    entries = {
        "constant": {"sizes": ["0"]},
        "linear_theory": {"sizes": ["1", "2"]},
        "coarse": {"architecture": "linear_theory", "sizes": ["1"], "overrides": {"modes": 3}},
        "linear_vectors": {"sizes": ["8"]},
        "painn": {"sizes": ["3k"], "learning_rate": 0.01},
    }
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(study(clouds, entries)))
    main(["plan", str(path)])
    main(["run", str(path), "--out", str(out), "--engine", "inline"])
    main(["collect", str(out)])
    table = read_results(out / "results.parquet").to_pandas()
    assert set(table["status"]) == {"ok"}
    explained = table[table["metric"] == "velocities_r2"].set_index(["architecture", "size", "data", "split"])
    assert len(explained) == 6 * 2 * 2
    test = explained.xs((16, "test"), level=("data", "split"))
    assert test.loc[("constant", "0"), "value"] == pytest.approx(0, abs=0.1)
    assert test.loc["linear_theory", "value"].min() > 0.5 > 0.1 > test.loc[("constant", "0"), "value"]
    assert test.loc[("linear_vectors", "8"), "value"] > 0.5
    assert test.loc[("coarse", "1"), "flops"] < 0.2 * test.loc[("linear_theory", "1"), "flops"]
    assert test["params"].loc[["linear_theory", "linear_vectors"]].tolist() == [1, 2, 8]
    assert test["lr"].isna().to_numpy().tolist() == [name != "painn" for name, _ in test.index]
    assert (explained["se"] > 0).all()
    assert set(explained["n"]) == {6}
    metrics = table.groupby("architecture")["metric"].agg(set)
    assert (metrics == metrics["painn"]).all()


@pytest.mark.parametrize(
    ("entries", "task", "sentence"),
    [
        ({"linear_theory": {"sizes": ["1"], "learning_rate": 1}}, {}, "is a baseline.*remove learning_rate of"),
        ({"linear_theory": {"sizes": ["1"], "treatment": "augmentation"}}, {}, "is a baseline.*remove treatment of"),
        ({"linear_theory": {"sizes": ["30k"]}}, {}, "unknown size of linear_theory '30k'; did you mean '3'"),
        ({"linear_theori": {"sizes": ["1"]}}, {}, "unknown architecture 'linear_theori'; did you mean 'linear_theory'"),
        ({"linear_theory": {"sizes": ["1"], "overrides": {"modes": 3}}}, {}, "must not call it 'linear_theory'"),
        ({"halo_count": {"sizes": ["4"]}}, {}, "halo_count does not predict velocities; for these choose one of"),
        ({"linear_theory": {"sizes": ["1"]}}, {"target": "parameters"}, "linear_theory does not predict parameters"),
        ({"painn": {"sizes": ["3k"]}}, {}, "the entry 'painn' lacks the learning_rate that painn is trained with"),
    ],
)
def test_what_means_nothing_is_refused(
    clouds: Path, entries: dict[str, Any], task: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        make_plan(Study.model_validate(study(clouds, entries, task=task)))


def test_baselines_have_no_place_among_learning_rates(clouds: Path) -> None:
    rates = {"learning_rates": [0.1, 0.2], "evaluation": {"splits": ["val"]}}
    entries: dict[str, Any] = {"painn": {"sizes": ["3k"]}}
    assert len(make_plan(Study.model_validate(study(clouds, entries, **rates)))) == 4
    entries["linear_theory"] = {"sizes": ["1"]}
    with pytest.raises(UserError, match="not trained at learning_rates; remove 'linear_theory'"):
        make_plan(Study.model_validate(study(clouds, entries, **rates)))


def test_baselines_of_cosmology_are_not_for_atoms(small_store: Path) -> None:
    with pytest.raises(UserError, match="baseline for samples of the domain 'cloud' or 'tree', not 'atoms'"):
        make_plan(Study.model_validate(study(small_store, {"constant": {"sizes": ["0"]}})))
