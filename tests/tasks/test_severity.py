from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.cuts import cut, cut_splits
from scisci.data.resplit import resplit
from scisci.data.shifts import Setting
from scisci.data.splits import drawn
from scisci.data.store import Store
from scisci.tasks.predictions import writing_predictions
from scisci.tasks.severity import SCHEMA, Predicted, bin_rows, equal_count_bins, severity_table

MILLI = 1e-3


@given(st.lists(st.integers(0, 12).map(float), min_size=1, max_size=60), st.integers(1, 9))
def test_bins_are_ordered_and_equal_values_stay_together(values: list[float], bins: int) -> None:
    graded = np.array(values)
    found = equal_count_bins(graded, bins)
    assert sorted(set(found)) == list(range(found.max() + 1))
    assert found.max() < bins
    order = np.argsort(graded, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert ((np.diff(found[order]) == 0) | (np.diff(graded[order]) > 0)).all()


@given(st.integers(1, 80), st.integers(1, 9))
def test_bins_of_different_values_are_equally_full(n: int, bins: int) -> None:
    counts = np.bincount(equal_count_bins(np.random.default_rng(n).permutation(n) * 0.7, bins))
    assert counts.max() - counts.min() <= 1
    assert len(counts) == min(n, bins)


def test_standard_error_over_groups_is_the_jackknife_that_leaves_one_group_out() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 2000)
    weights = rng.integers(3, 12, 2000).astype(float)
    numerators = weights * (5 + rng.normal(size=150)[groups] + rng.normal(size=2000))
    predicted = Predicted("test", np.arange(2000), groups, {"force_mae": (numerators, weights)})
    (row,) = bin_rows(predicted, np.ones(2000), 4)
    left = np.array([numerators[groups != g].sum() / weights[groups != g].sum() for g in range(150)])
    jackknife = np.sqrt(149 / 150 * np.square(left - left.mean()).sum())
    assert row["value"] == pytest.approx(numerators.sum() / weights.sum())
    assert row["se_groups"] == pytest.approx(jackknife, rel=0.02)
    assert row["se"] < row["se_groups"] / 2
    assert (row["n"], row["groups"]) == (2000, 150)


@pytest.fixture(scope="module")
def graded(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The small store, split by force norm and by size."""
    old, path = Store(small_store), tmp_path_factory.mktemp("graded") / "graded.h5"
    cuts = [cut(Setting(old), "force_norm", ["80%"]), cut(Setting(old), "size", ["9"])]
    resplit(old, path, drawn(cut_splits(cuts), {"train": 0.4, "val": 0.1, "test": 0.5}))
    return Store(path)


def predict(store: Store, folder: Path, scale: float, splits: tuple[str, ...] = ()) -> Path:
    """Predictions whose force error is `scale` meV/Å per eV/Å of force norm in every component of a sample."""
    norms = store.metadata("severity_force_norm")
    for name in splits or [name for name in store.splits if name == "test" or name.startswith("ood")]:
        ids = store.split(name).indices()
        ragged = store.take(ids)
        off = np.repeat(scale * MILLI * norms[ids], ragged.lengths)[:, None]
        with writing_predictions(folder / f"{name}.h5", store.fingerprint, name) as writer:
            energy = ragged.samples["energy"] + 2 * MILLI * ragged.lengths
            writer.append(ids, ragged.lengths, {"energy": energy}, {"forces": ragged.items["forces"] + off})
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.h5"))


def test_errors_that_grow_with_severity_come_back_bin_by_bin(graded: Store, tmp_path: Path) -> None:
    """The error of a bin is the mean severity of its samples, weighted by atoms, times the scale."""
    models = {"a": files(predict(graded, tmp_path / "a", 1.0)), "b": files(predict(graded, tmp_path / "b", 3.0))}
    table = severity_table(graded, models, bins=4)
    assert table.schema.equals(SCHEMA)
    frame = table.to_pandas()
    assert set(zip(frame["shift"], frame.split, strict=True)) == {
        ("force_norm", "test"),
        ("force_norm", "ood_force_norm"),
        ("size", "test"),
        ("size", "ood_size"),
    }
    np.testing.assert_allclose(frame[frame.metric == "energy_mae"].value, 2.0, rtol=1e-6)
    for model, scale in (("a", 1.0), ("b", 3.0)):
        rows = frame[(frame.model == model) & (frame.metric == "force_mae") & (frame["shift"] == "force_norm")]
        for row in rows.itertuples():
            ids = graded.split(row.split).indices()
            norms, atoms = graded.metadata("severity_force_norm")[ids], graded.take(ids).lengths
            inside = (norms >= row.severity_min) & (norms <= row.severity_max)
            assert row.n == inside.sum()
            assert row.severity == pytest.approx(norms[inside].mean())
            assert row.value == pytest.approx(scale * np.average(norms[inside], weights=atoms[inside]), rel=1e-4)
    for (_, split), rows in frame[frame.metric == "force_mae"].groupby(["shift", "split"]):
        assert rows[rows.model == "a"].n.sum() == graded.split(split).size


def test_a_shift_that_the_store_does_not_keep_is_measured(graded: Store, tmp_path: Path) -> None:
    paths = files(predict(graded, tmp_path, 1.0, ("test",)))
    frame = severity_table(graded, {"a": paths}, ["force_max", "size"], bins=2).to_pandas()
    assert set(frame["shift"]) == {"force_max", "size"}
    with pytest.raises(UserError, match="name no shift; choose one with --by"):
        severity_table(graded, {"a": paths})
    with pytest.raises(UserError, match="unknown shift"):
        severity_table(graded, {"a": paths}, ["forces"])


def test_predictions_of_particles_are_scored_by_position(particle_store: Path, tmp_path: Path) -> None:
    store = Store(particle_store)
    for name, off in (("test", 0.1), ("ood_bodies8", 0.2)):
        ids = store.split(name).indices()
        ragged = store.take(ids)
        with writing_predictions(tmp_path / f"{name}.h5", store.fingerprint, name) as writer:
            writer.append(ids, ragged.lengths, {}, {"positions": ragged.items["target_positions"] + off})
    frame = severity_table(store, {"m": files(tmp_path)}, ["size"]).to_pandas().set_index("split")
    np.testing.assert_allclose(frame.value[["test", "ood_bodies8"]], [0.01, 0.04], rtol=1e-4)
    assert frame.severity[["test", "ood_bodies8"]].tolist() == [5, 8]


def test_files_that_cannot_be_scored_are_refused(graded: Store, small_store: Path, tmp_path: Path) -> None:
    (path,) = files(predict(graded, tmp_path, 1.0, ("test",)))
    with pytest.raises(UserError, match="is for other data"):
        severity_table(Store(small_store), {"a": [path]})
    with pytest.raises(UserError, match="not a predictions file"):
        severity_table(graded, {"a": [small_store]})
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(UserError, match="not a readable predictions file"):
        severity_table(graded, {"a": [tmp_path / "text.h5"]})
    with h5py.File(path, "r+") as file:
        del file["forces"]
    with pytest.raises(UserError, match="has no forces"):
        severity_table(graded, {"a": [path]})


def run(*words: object) -> None:
    main(["severity", *map(str, words)])


def test_one_command_leads_from_predictions_to_a_table_and_a_chart(graded: Store, tmp_path: Path) -> None:
    predict(graded, tmp_path / "run-a" / "predictions", 1.0)
    predict(graded, tmp_path / "b", 3.0)
    run(graded.path, tmp_path / "run-a", f"other={tmp_path / 'b'}", "--out", tmp_path / "s.png", "--bins", 3)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert pq.read_metadata(tmp_path / "s.parquet").metadata[b"scisci_severity_version"] == b"1"
    assert set(pd.read_parquet(tmp_path / "s.parquet").model) == {"run-a", "other"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["b", "--out", "s.gif"], "ends in neither .parquet"),
        (["b", "--out", "s.png", "--bins", "0"], "--bins is 0"),
        (["b", "b", "--out", "s.png"], "two models are called 'b'"),
        (["nowhere", "--out", "s.png"], "no predictions at nowhere"),
        (["b", "--out", "s.png", "--metric", "force_mea"], "unknown metric of these predictions 'force_mea'"),
    ],
)
def test_what_a_user_gets_wrong_is_said_and_nothing_is_written(
    words: list[str], message: str, graded: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict(graded, tmp_path / "b", 1.0)
    with pytest.raises(UserError, match=message):
        run(graded.path, *words)
    assert not list(tmp_path.glob("s.*"))
