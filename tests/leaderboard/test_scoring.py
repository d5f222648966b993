"""Scores of submissions: those that the sweep recorded, the same digits every time, of nothing but their samples."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.results import RESULTS_SCHEMA, read_results
from scisci.data.library import open_dataset
from scisci.data.series import rolling_windows
from scisci.data.store import Store
from scisci.leaderboard.commands import recomputed
from scisci.leaderboard.packing import pack
from scisci.leaderboard.ranks import boards
from scisci.leaderboard.reading import read_submission
from scisci.leaderboard.scoring import HEADLINES, digest, score, trivial, trivials
from scisci.leaderboard.sealing import seal
from scisci.tasks.metrics import Accumulator, infilling_errors
from scisci.tasks.scoring import View

from .sweeps import clouds, name_store, study, swept, trees

WINDOW = {"context": 48, "horizon": 12}


@pytest.fixture(scope="module")
def packed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(finished, out)
    return out


@pytest.fixture(scope="module")
def series(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of forecasters."""
    entries = {"seasonal_naive": {"sizes": ["0"]}, "patch_encoder": {"sizes": ["1k"], "learning_rate": 0.01}}
    evaluation = {"splits": ["test", "ood_daily"], "max_samples": 5, "symmetry_samples": 0, "predictions": True}
    content = study("tiny-series", entries, data=[16], task=WINDOW, evaluation=evaluation)
    return swept(content, tmp_path_factory.mktemp("sweep") / "series")


def same_as_recorded(sweep: Path, folders: list[Path]) -> None:
    """All errors but those of symmetry and of densities, as the sweep's results table has them, and its failed runs."""
    recorded = read_results(sweep / "results.parquet").to_pandas()
    recorded["slug"] = "small-" + recorded.architecture.str.replace("_", "-")
    recorded.loc[recorded.treatment != "none", "slug"] += "-augmentation"
    found = pa.concat_tables([score(folder) for folder in folders]).to_pandas()
    assert set(found.architecture) == {folder.name for folder in folders}
    recorded = recorded[~recorded.metric.fillna("").str.contains("symmetry|series_nll")]
    key = ["slug", "size", "data", "seed", "split", "metric"]
    recorded, found = recorded.set_index(key).sort_index(), found.rename(columns={"architecture": "slug"})
    found = found.set_index(key).sort_index()
    assert found.index.equals(recorded.index)
    for name in ("value", "se", "se_groups"):
        np.testing.assert_allclose(found[name], recorded[name], rtol=1e-6, atol=1e-9)
    exact = ["n", "severity", "status", "params", "params_body", "samples_seen", "flops", "lr", "seconds", "device"]
    # No FLOPs at all are not given.
    pd.testing.assert_frame_equal(
        found[exact].fillna(0), recorded[exact].fillna(0), check_dtype=False, check_exact=True
    )


def test_scores_are_what_the_sweep_recorded(finished: Path, packed: Path) -> None:
    same_as_recorded(finished, sorted(packed.iterdir()))


def test_scores_of_series_are_what_the_sweep_recorded(series: Path, tmp_path: Path) -> None:
    same_as_recorded(series, pack(series, tmp_path))


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_scoring_again_or_elsewhere_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    first = score(packed / "small-painn")
    assert first.schema.equals(RESULTS_SCHEMA, check_metadata=True)
    shutil.copytree(packed / "small-painn", tmp_path / "small-painn")
    assert parquet(score(tmp_path / "small-painn")) == parquet(score(packed / "small-painn")) == parquet(first)
    assert digest(tmp_path / "small-painn") == digest(packed / "small-painn")


def test_the_digest_changes_with_any_byte_and_name(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small-painn"
    shutil.copytree(packed / "small-painn", folder)
    found = {digest(folder)}
    for path in (folder / "submission.yaml", folder / "predictions" / "3k-16-0" / "test.h5"):
        path.write_bytes(path.read_bytes() + b"\n")
        found.add(digest(folder))
    path.rename(path.with_name("tset.h5"))
    found.add(digest(folder))
    path.with_name("tset.h5").unlink()
    found.add(digest(folder))
    assert len(found) == 5
    path.symlink_to(folder / "submission.yaml")
    with pytest.raises(UserError, match="not a plain file"):
        digest(folder)


def test_the_trivial_errors_are_what_their_words_say(library: Path, tmp_path: Path) -> None:
    store = open_dataset("tiny-molecules")
    forces = store.take(store.split("test").indices(9)).items["forces"]
    assert trivial(store, "test", 9) == {"force_mae": pytest.approx(1000 * np.abs(forces).mean(), rel=1e-6)}
    store = open_dataset("tiny-particles")
    taken = store.take(store.split("ood_bodies8").indices(7)).items
    moved = taken["target_positions"].astype(np.float64) - taken["positions"]
    assert trivial(store, "ood_bodies8", 7) == {"position_mse": pytest.approx(np.square(moved).mean(), rel=1e-6)}
    gaps = Store(trees(tmp_path / "gaps.h5"))
    assert trivial(gaps, "test", 6)["infilling_nll"] == pytest.approx(coin(gaps))
    assert set(trivial(gaps, "test", 6)) == set(HEADLINES["tree"])


def coin(store: Store) -> float:
    """Cross-entropy of a fair coin."""
    errors = Accumulator(infilling_errors)
    for _, batch in View().batches(store, store.split("test").indices()):
        errors.update({"infilling": torch.zeros_like(batch.label).double()}, batch)
    return errors.compute()["infilling_nll"].value


def test_forecasts_of_one_horizon_share_a_board(series: Path, tmp_path: Path) -> None:
    (board,) = boards([recomputed(folder) for folder in pack(series, tmp_path)])
    assert (board.name, board.horizon) == ("tiny-series-12", 12)
    by_slug = {entry.slug: entry for entry in board.entries}
    assert by_slug["small-seasonal-naive"].scores["test"].normalised == pytest.approx(1, rel=1e-6)
    assert by_slug["small-seasonal-naive"].flags == ()


def test_the_trivial_forecast_is_the_seasonal_naive_one(series: Path, tmp_path: Path) -> None:
    for folder in pack(series, tmp_path):
        assert {(dataset, split) for dataset, split, _ in trivials(folder)} == {
            ("tiny-series", "test"),
            ("tiny-series", "ood_daily"),
        }
        table = score(folder).to_pandas()
        table = table[table.metric == "series_wql"]
        samples = read_submission(folder).runs[0].splits
        for row in table.itertuples():
            error = trivials(folder)["tiny-series", row.split, samples[row.split]]["series_wql"]
            if folder.name == "small-seasonal-naive":
                assert row.value == pytest.approx(error, rel=1e-6)
            else:
                assert row.value != pytest.approx(error, rel=1e-3)


def edited(source: Path, target: Path, change: Any) -> Path:
    shutil.copytree(source, target)
    content = yaml.safe_load((target / "submission.yaml").read_text())
    change(content)
    (target / "submission.yaml").write_text(yaml.safe_dump(content))
    return target


def test_predictions_of_other_samples_are_refused(packed: Path, tmp_path: Path) -> None:
    source, number = packed / "small-painn", iter(range(9))

    def with_run(**changes: Any) -> Path:
        return edited(source, tmp_path / f"s{next(number)}", lambda content: content["runs"][0].update(changes))

    for folder, message in (
        (with_run(fingerprint="0" * 64), "is of other data than"),
        (with_run(splits={"test": 10}), "not of the first 10 samples of 'test'"),
        (with_run(splits={"test": 12}, reported={}), "not of the first 12 samples of 'test'"),
        (with_run(splits={"tset": 11}, reported={}), "unknown split 'tset'|is missing"),
        (with_run(dataset="tiny-molecule"), "did you mean 'tiny-molecules'"),
    ):
        content = yaml.safe_load((folder / "submission.yaml").read_text())
        content["runs"][0]["reported"] = {}
        (folder / "submission.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=message):
            score(folder)
    folder = with_run()
    swapped = folder / "predictions" / "3k-16-0"
    (swapped / "test.h5").write_bytes((swapped / "val.h5").read_bytes())
    with pytest.raises(UserError, match="is for the split 'val'"):
        score(folder)
    folder = with_run()
    with h5py.File(folder / "predictions" / "3k-16-0" / "test.h5", "r+") as file:
        file["forces"][3, 1] = np.nan
    with pytest.raises(UserError, match="not finite, and so force_mae is not"):
        score(folder)


def test_runs_scored_on_different_windows_are_not_put_together(library: Path, series: Path, tmp_path: Path) -> None:
    (naive,) = [path for path in pack(series, tmp_path / "a") if path.name == "small-seasonal-naive"]
    content = study("tiny-series", {"seasonal_naive": {"sizes": ["0"]}}, data=[8], task=WINDOW | {"horizon": 6})
    content["evaluation"]["splits"] = ["test", "ood_daily"]
    (other,) = pack(swept(content, tmp_path / "sweep"), tmp_path / "b")
    runs = yaml.safe_load((other / "submission.yaml").read_text())["runs"]
    both = edited(naive, tmp_path / "both", lambda content: content["runs"].extend(runs))
    shutil.copytree(other / "predictions" / "0-8-0", both / "predictions" / "0-8-0")
    with pytest.raises(UserError, match="another context or horizon than others on tiny-series"):
        score(both)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "seed"
    path.write_text("0123456789abcdef" * 4)
    return path


def test_sealed_particles_are_scored_by_private_labels(library: Path, secret: Path, tmp_path: Path) -> None:
    seal("charged-nbody", secret, tmp_path / "sealed", samples=6, splits=["test"])
    inputs, labels = tmp_path / "sealed" / "inputs.h5", tmp_path / "sealed" / "labels.h5"
    content = study("tiny-particles", {"egnn": {"sizes": ["3k"], "learning_rate": 0.01}}, data=[16])
    (folder,) = pack(swept(content, tmp_path / "sweep"), tmp_path / "out", inputs=inputs)
    (row,) = score(folder, labels).to_pylist()
    with h5py.File(folder / "predictions" / "3k-16-0" / "test.h5") as file:
        store = Store(labels)
        true = store.take(store.split("test").indices(6)).items["target_positions"]
        assert row["value"] == pytest.approx(np.square(file["positions"][...] - true).mean(), rel=1e-6)
    assert (row["split"], row["metric"], row["n"]) == ("test", "position_mse", 6)
    ((key, error),) = trivials(folder, labels).items()
    assert key == ("tiny-particles", "test", 6)
    assert error == trivial(store, "test", 6)
    with pytest.raises(UserError, match="is of other data than"):
        score(folder)
    with pytest.raises(UserError, match="not of a sealed test set"):
        score(folder, inputs)


def test_of_sealed_series_only_what_was_sealed_counts(library: Path, secret: Path, tmp_path: Path) -> None:
    seal("flowing-sensors", secret, tmp_path / "sealed", samples=3, splits=["test"], horizon=6)
    inputs, labels = tmp_path / "sealed" / "inputs.h5", tmp_path / "sealed" / "labels.h5"
    entries = {"dlinear": {"sizes": ["linear"], "learning_rate": 0.01}}
    content = study("tiny-series", entries, data=[16], task={"context": 8, "horizon": 6})
    (folder,) = pack(swept(content, tmp_path / "sweep"), tmp_path / "out", inputs=inputs)
    rows = {row["metric"]: row for row in score(folder, labels).to_pylist()}
    store = Store(labels)
    ids = store.split("test").indices(3)
    counts = store.sample_column("channels") + store.sample_column("known")
    times = store.lengths(ids) // counts[ids]
    series, starts = rolling_windows(times, 8, 6)
    missed, total = 0.0, 0.0
    with h5py.File(folder / "predictions" / "linear-16-0" / "test.h5") as file:
        offsets, mean = file["offsets"][...], file["mean"][...]
        assert len(file["ids"]) == len(series) > 3
        for row, (k, start) in enumerate(zip(series, starts, strict=True)):
            if start == times[k] - 6:
                taken = store.take(ids[k : k + 1])
                values = taken.items["values"].reshape(counts[ids[k]], -1)[: int(taken.samples["channels"][0])]
                true = values[:, start:].astype(np.float64).ravel()
                missed += np.nansum(np.abs(mean[offsets[row] : offsets[row + 1]] - true))
                total += np.nansum(np.abs(true))
    assert rows["series_wql"]["n"] == 3
    # All deciles of a point forecast are the point, whose mean of pinball losses at nine levels is half the distance.
    assert rows["series_wql"]["value"] == pytest.approx(missed / total, rel=1e-5)
    assert list(trivials(folder, labels)) == [("tiny-series", "test", 3)]


def test_velocities_of_some_points_alone_are_refused(finished: Path, tmp_path: Path, library: Path) -> None:
    name_store(library, "tiny-clouds", clouds(tmp_path / "clouds.h5"))
    for number, (task, size, refused) in enumerate(
        (({"heaviest": 30}, "0", True), ({"heaviest": 30, "target": "parameters"}, "2", False), ({}, "0", False))
    ):
        content = study("tiny-clouds", {"constant": {"sizes": [size]}}, data=[8], task=task)
        (folder,) = pack(swept(content, tmp_path / f"sweep{number}"), tmp_path / f"out{number}")
        if refused:
            with pytest.raises(UserError, match="predict the velocities of all points"):
                score(folder)
        else:
            table = score(folder).to_pandas()
            assert set(HEADLINES["cloud"]) & set(table.metric)
            assert set(table[table.split == "test"].n) == {8}
