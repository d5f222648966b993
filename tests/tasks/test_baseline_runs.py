"""What can be done with a baseline's run directory: predict, test, measure symmetry, score against severity."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from scisci.cli_data import main as data
from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.data.samples import CloudSample
from scisci.data.store import Store
from scisci.tasks.baselines.cli import main as baseline
from scisci.tasks.cli import main
from scisci.tasks.domains import task_for
from scisci.tasks.severity import severity_table
from scisci.tasks.symmetry_cli import main as symmetry

from . import test_baselines, test_trees

SIDE = test_baselines.SIDE
MADE = [
    *(("cloud", "velocities", name) for name in ("constant", "linear_theory", "linear_vectors")),
    *(("cloud", "parameters", name) for name in ("constant", "halo_count", "two_point", "two_point_mlp")),
    *(("tree", "parameters", name) for name in ("constant", "node_count")),
    *(("tree", "infilling", name) for name in ("constant", "logistic")),
]


def falling(rng: np.random.Generator) -> CloudSample:
    """Points that fall towards one, more of them in denser universes."""
    count = int(rng.integers(40, 90))
    middle, offsets = rng.uniform(0, SIDE, 3), rng.normal(0, 12, (count, 3))
    return CloudSample(
        np.mod(middle + offsets, SIDE),
        np.full(3, SIDE),
        rng.normal(-20, 5) * offsets,
        np.sort(rng.pareto(2, count) + 1),
        omega_m=0.1 + count / 400 + rng.normal(0, 0.02),
        sigma_8=rng.uniform(0.6, 1.0),
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("stores")
    clouds = test_baselines.store_of(folder / "clouds.h5", falling, train=30, held=24)
    shapes = test_trees.store_of(folder / "shapes.h5", test_trees.by_shape, train=48)
    gaps = test_trees.store_of(folder / "gaps.h5", test_trees.to_fill, train=48)
    return {
        ("cloud", "velocities"): clouds,
        ("cloud", "parameters"): clouds,
        ("tree", "parameters"): shapes,
        ("tree", "infilling"): gaps,
    }


def fitted(store: Path, runs: Path, target: str, name: str, *options: str) -> Path:
    less = ["--set", "modes", "5"] if name == "linear_theory" else []
    baseline(["fit", name, "--data", str(store), "--target", target, "--runs", str(runs), *less, *options])
    (folder,) = runs.iterdir()
    return folder


def reported(folder: Path, split: str = "test") -> dict[str, float]:
    metrics = RunResult.model_validate_json((folder / "result.json").read_text()).splits[split].metrics
    return {name: metric.value for name, metric in metrics.items() if not name.startswith("symmetry")}


@pytest.mark.parametrize(("domain", "target", "name"), MADE)
def test_predictions_say_what_was_measured(
    stores: dict[tuple[str, str], Path],
    tmp_path: Path,
    domain: str,
    target: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    store = Store(stores[domain, target])
    folder = fitted(store.path, tmp_path, target, name)
    main(["predict", "--run", str(folder)])
    path, expected = folder / "predictions" / "test.h5", reported(folder)
    assert f"wrote {path}" in capsys.readouterr().out
    with h5py.File(path) as file:
        held = store.take(file["ids"][...])
        truth = held.samples | held.items
        if target == "velocities":
            missed = file["velocities"][...] - truth["velocities"]
            assert np.square(missed).mean() == pytest.approx(expected["velocities_mse"], rel=1e-5)
        elif target == "parameters":
            for parameter in ("omega_m", "sigma_8"):
                missed = file[parameter][...] - truth[parameter]
                assert np.square(missed).mean() == pytest.approx(expected[f"{parameter}_mse"], rel=1e-6)
        else:
            virtual = truth["label"] >= 0
            said = file["infilling"][...][virtual] > 0
            assert (said == (truth["label"][virtual] == 1)).mean() == pytest.approx(expected["infilling_accuracy"])
    # The same numbers by another way: a table of one bin.
    frame = severity_table(store, {"m": [path]}, ["size"], bins=1).to_pandas().set_index("metric")
    assert set(frame.index) == set(expected)
    for metric, value in expected.items():
        assert frame.value[metric] == pytest.approx(value, rel=1e-4, abs=1e-6), metric
    errors = tmp_path / "errors.csv"
    options = ["--dtype", "float64", "--samples", "6", "--elements", "2", "--out", str(errors)]
    symmetry(["measure", str(folder), "--data", str(store.path), *options])
    table = pd.read_csv(errors)
    groups = task_for(domain).groups
    assert set(table.group) == set(groups)
    # A baseline that says that nothing moves has no size to be relative to.
    assert table.value[table.statistic == "absolute"].max() < 1e-9
    main(["test", "--run", str(folder)])
    headline = {"velocities": "velocities R²", "parameters": "omega_m R²", "infilling": "in-filling F1"}[target]
    assert headline in capsys.readouterr().out


@pytest.mark.parametrize(("target", "metric"), [("velocities", "velocities_mse"), ("parameters", "omega_m_r2")])
def test_bins_of_severity_make_up_the_split(
    stores: dict[tuple[str, str], Path], tmp_path: Path, target: str, metric: str
) -> None:
    """Weighted by points, or of a parameter by clouds, since the variance that shares are of is the split's."""
    store = Store(stores["cloud", target])
    name = {"velocities": "linear_vectors", "parameters": "halo_count"}[target]
    folder = fitted(store.path, tmp_path / "runs", target, name)
    main(["predict", "--run", str(folder)])
    out = tmp_path / "severity.png"
    data(["severity", str(store.path), str(folder), "--by", "size", "--bins", "4", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    frame = pd.read_parquet(out.with_suffix(".parquet"))
    rows = frame[frame.metric == metric]
    lengths = store.take(store.split("test").indices()).lengths
    inside = [(lengths >= row.severity_min) & (lengths <= row.severity_max) for row in rows.itertuples()]
    assert [which.sum() for which in inside] == rows.n.tolist()
    weights = [lengths[which].sum() if target == "velocities" else which.sum() for which in inside]
    assert len(rows) == 4
    assert np.average(rows.value, weights=weights) == pytest.approx(reported(folder)[metric], rel=1e-4)
    assert (rows.se > 0).all()


@pytest.mark.parametrize("network", [False, True])
def test_predictions_of_the_heaviest_points_are_scored_by_these(
    stores: dict[tuple[str, str], Path], tmp_path: Path, network: bool
) -> None:
    store = Store(stores["cloud", "velocities"])
    if network:
        main(
            [
                *("fit", f"--data.dataset={store.path}", f"--runs={tmp_path}", "--model.architecture=schnet"),
                *("--model.size=3k", "--model.heaviest=25", "--trainer.max_steps=4", "--trainer.val_check_interval=4"),
                *("--trainer.enable_progress_bar=false", "--model.symmetry_samples=0"),
            ]
        )
        (folder,) = tmp_path.iterdir()
        main(["predict", "--run", str(folder), "--trainer.enable_progress_bar=false"])
    else:
        folder = fitted(store.path, tmp_path, "velocities", "linear_vectors", "--heaviest", "25")
        main(["predict", "--run", str(folder)])
    path = folder / "predictions" / "test.h5"
    frame = severity_table(store, {"m": [path]}, ["size"], bins=1).to_pandas().set_index("metric")
    for metric, value in reported(folder).items():
        assert frame.value[metric] == pytest.approx(value, rel=1e-4), metric
    with h5py.File(path, "r+") as file:
        assert set(np.diff(file["offsets"])) == {25}
        del file.attrs["heaviest"]
    with pytest.raises(UserError, match="has another number of points than the samples it is for; predict again"):
        severity_table(store, {"m": [path]}, ["size"])


def test_other_data_and_splits_by_option(stores: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    clouds, gaps = stores["cloud", "parameters"], stores["tree", "infilling"]
    other = test_baselines.store_of(tmp_path / "other.h5", falling, train=3, held=5)
    folder = fitted(clouds, tmp_path / "runs", "parameters", "halo_count")
    main(["predict", "--run", str(folder), f"--data.dataset={other}", "--data.test_splits=[val]"])
    with h5py.File(folder / "predictions" / "val.h5") as file:
        assert file.attrs["fingerprint"] == Store(other).fingerprint
        assert len(file["omega_m"]) == 5
    with pytest.raises(UserError, match="domain 'tree', this task needs 'cloud'"):
        main(["predict", "--run", str(folder), f"--data.dataset={gaps}"])
    with pytest.raises(UserError, match="did you mean"):
        main(["predict", "--run", str(folder), "--data.test_splits=[tset]"])
    with pytest.raises(UserError, match="'scisci predict --help' lists what is accepted"):
        main(["predict", "--run", str(folder), "--data.colour=red"])


def test_what_cannot_be_done_with_a_baseline_is_said(stores: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    clouds = stores["cloud", "parameters"]
    folder = fitted(clouds, tmp_path / "runs", "parameters", "two_point")
    for command in ("fit", "validate"):
        with pytest.raises(UserError, match=f"holds a baseline, which {command} is not for; use 'scisci baseline fit'"):
            main([command, "--run", str(folder)])
    with pytest.raises(UserError, match=r"no predictions at .*; write them with 'scisci predict'"):
        data(["severity", str(clouds), str(folder), "--by", "size", "--out", str(tmp_path / "s.parquet")])
    with pytest.raises(UserError, match="--heaviest is for clouds"):
        fitted(stores["tree", "parameters"], tmp_path / "runs", "parameters", "node_count", "--heaviest", "3")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged; fit the baseline again"):
        main(["predict", "--run", str(folder)])
    about = folder / "baseline.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"schema_version": 2}))
    with pytest.raises(UserError, match="written by another version of scisci"):
        main(["predict", "--run", str(folder)])
    about.write_text("{")
    with pytest.raises(UserError, match=r"baseline\.json is damaged"):
        symmetry(["measure", str(folder), "--data", str(clouds)])
    assert not (folder / "predictions").exists()


def test_predictions_without_what_they_are_scored_by(stores: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    clouds = Store(stores["cloud", "parameters"])
    folder = fitted(clouds.path, tmp_path, "parameters", "halo_count")
    main(["predict", "--run", str(folder)])
    path = folder / "predictions" / "test.h5"
    with h5py.File(path, "r+") as file:
        del file["sigma_8"]
    with pytest.raises(UserError, match=r"test\.h5 has no sigma_8; predict again"):
        severity_table(clouds, {"m": [path]}, ["size"])
