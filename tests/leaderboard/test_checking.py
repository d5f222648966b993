from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.data.library import open_dataset
from scisci.data.store import Store
from scisci.leaderboard.checking import check, similar
from scisci.leaderboard.contents import Agreement
from scisci.leaderboard.suspicions import of_agreements
from scisci.tasks.predictions import writing_predictions
from scisci.tasks.scoring import View
from scisci.tasks.series_metrics import real_channels

from .tiny import edit, predict, write_submission


def test_nothing_is_wrong_with_a_valid_submission(submission: Path) -> None:
    found = check(submission)
    assert found.refused == ()
    assert found.flagged == ()
    assert [*found.lines()] == ["nothing is wrong; 0 remarks for a person to look at"]
    found.require()


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path, submission: Path) -> None:
    (tmp_path / "link").symlink_to(submission)
    for name in ("absent", "link"):
        assert "there is no folder of that name" in str(check(tmp_path / name).refused[0])


def test_runs_that_did_not_end_well_have_no_predictions(submission: Path) -> None:
    edit(submission, lambda content: content["runs"][0].update(status="failed", reason="no memory", splits={}))
    assert {str(finding) for finding in check(submission).refused} == {
        f"predictions/small-0/{split}.h5: does not belong to a submission; remove it" for split in ("test", "ood_600K")
    }


def resubmit(folder: Path, dataset: str, splits: dict[str, int], write: Callable[..., None]) -> Path:
    """A submission of one run on another data set, whose files `write(store, path, split, samples)` makes."""
    write_submission(folder, {"only-0": 0.1})
    store = open_dataset(dataset)
    horizon = 12 if store.domain == "series" else None
    about = {"dataset": dataset, "fingerprint": store.fingerprint, "splits": splits, "horizon": horizon}
    edit(folder, lambda content: content["runs"][0].update(about))
    for path in folder.glob("predictions/*/*"):
        path.unlink()
    for split, samples in splits.items():
        write(store, folder / "predictions" / "only-0" / f"{split}.h5", split, samples)
    return folder


def write_particles(store: Store, path: Path, split: str, samples: int) -> None:
    ids = store.split(split).indices(samples)
    ragged = store.take(ids)
    true = ragged.items["target_positions"].astype("f8")
    with writing_predictions(path, store.fingerprint, split) as writer:
        noise = 0.1 * np.random.default_rng(0).normal(size=true.shape)
        writer.append(ids, ragged.lengths, {}, {"positions": true + noise})


def write_series(store: Store, path: Path, split: str, samples: int, context: int = 48, horizon: int = 12) -> None:
    """Forecasts of the mean of each channel's past; NaN where a channel has none."""
    options = {"context": str(context), "horizon": str(horizon)}
    view = View(context=context, horizon=horizon)
    with writing_predictions(path, store.fingerprint, split, **options) as writer:
        for ids, batch in view.batches(store, store.split(split).indices(samples)):
            seen = batch.past_observed.sum(-1)
            past = (batch.past.sum(-1) / seen)[..., None].expand_as(batch.future)[real_channels(batch)].flatten()
            kept = {"mean": past.numpy(), "quantiles": past[:, None].expand(-1, 9).numpy()}
            lengths = (batch.channels * horizon).numpy()
            writer.append(ids, lengths, {"start": batch.start.numpy()}, kept)


def write_crystals(store: Store, path: Path, split: str, samples: int) -> None:
    """Labels with noise, stress too."""
    rng, ids = np.random.default_rng(0), store.split(split).indices(samples)
    ragged = store.take(ids)
    noisy = {
        name: values * (1 + 0.1 * rng.normal(size=values.shape))
        for name, values in {**ragged.items, **ragged.samples}.items()
        if name in ("energy", "forces", "stress")
    }
    with writing_predictions(path, store.fingerprint, split) as writer:
        writer.append(ids, ragged.lengths, noisy, {"forces": noisy.pop("forces")})


def write_parameters(store: Store, path: Path, split: str, samples: int, heaviest: int = 50) -> None:
    """Omega_m and sigma_8 of clouds of which only some points were seen."""
    rng, ids = np.random.default_rng(0), store.split(split).indices(samples)
    ragged = store.take(ids)
    noisy = {name: ragged.samples[name] + 0.05 * rng.normal(size=samples) for name in ("omega_m", "sigma_8")}
    with writing_predictions(path, store.fingerprint, split, heaviest=str(heaviest)) as writer:
        writer.append(ids, np.minimum(ragged.lengths, heaviest), noisy, {})


@pytest.fixture
def series(library: Path, tmp_path: Path) -> Path:
    """A valid submission on series."""
    return resubmit(tmp_path / "series", "tiny-series", {"test": 8, "ood_daily": 5}, write_series)


def test_particles_and_series_are_checked_too(series: Path, tmp_path: Path) -> None:
    particles = resubmit(tmp_path / "particles", "tiny-particles", {"test": 20, "ood_bodies8": 9}, write_particles)
    for folder in (particles, series):
        assert check(folder).refused == ()
        assert check(folder).flagged == ()


def test_stress_is_predicted_wherever_it_is_known(library: Path, tmp_path: Path) -> None:
    folder = resubmit(tmp_path / "crystals", "xtb-crystals", {"test": 10}, write_crystals)
    assert check(folder).refused == ()
    assert check(folder).flagged == ()
    rewrite(folder / "predictions/only-0/test.h5", lambda file: file["stress"].__setitem__(4, np.nan))
    assert "has NaN in 'stress' where there is a label, from row 0 on" in str(check(folder).refused[0])


def test_clouds_may_be_seen_by_their_heaviest_points_but_not_for_velocities(library: Path, tmp_path: Path) -> None:
    folder = resubmit(tmp_path / "clouds", "pm-halos", {"test": 8, "ood_density": 5}, write_parameters)
    assert check(folder).refused == ()
    path = folder / "predictions/only-0/test.h5"
    rewrite(path, lambda file: file.attrs.__setitem__("heaviest", "40"))
    assert "offsets that are not those of its samples' points" in str(check(folder).refused[0])
    rewrite(path, lambda file: file.__setitem__("velocities", np.ones((int(file["offsets"][-1]), 3))))
    assert "is of the heaviest points alone; predict the velocities of all points" in "\n".join(
        map(str, check(folder).refused)
    )


def rewrite(path: Path, alter: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+") as file:
        alter(file)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda f: f["start"].__setitem__(3, 0), "forecasts that begin at other steps than the windows, from row 0 on"),
        (lambda f: f["quantiles"].__setitem__((5, 2), np.nan), "has NaN in 'quantiles' where there is a label"),
        (lambda f: f["mean"].__setitem__(slice(40, 60), np.nan), "has NaN in 'mean' where there is a label"),
        (lambda f: f["mean"].__setitem__(0, np.inf), "has inf in row 0 of 'mean'"),
        (lambda f: f.attrs.__delitem__("context"), "need the attributes context and horizon"),
        (lambda f: f.attrs.__setitem__("context", "24"), "row for every window of its series"),
        (lambda f: f.attrs.__setitem__("horizon", "6"), "row for every window of its series"),
        (lambda f: f.attrs.__setitem__("horizon", "100000"), "lower the horizon below"),
        (lambda f: f["ids"].__setitem__(slice(0, 2), f["ids"][-1]), "more than once"),
    ],
)
def test_windows_of_series_are_exactly_those_that_are_scored(
    alter: Callable[[h5py.File], Any], words: str, series: Path
) -> None:
    rewrite(series / "predictions/only-0/test.h5", alter)
    assert words in "\n".join(map(str, check(series).refused))


def test_all_files_on_a_data_set_have_the_same_windows(series: Path) -> None:
    path = series / "predictions/only-0/test.h5"
    path.unlink()
    write_series(open_dataset("tiny-series"), path, "test", 8, context=30)
    assert "has another context or horizon than another file" in "\n".join(map(str, check(series).refused))


def test_a_run_says_its_horizon(series: Path) -> None:
    edit(series, lambda content: content["runs"][0].pop("horizon"))
    assert "forecasts 12 steps, not None as its run says" in str(check(series).refused[0])


def test_displacements_are_judged_and_not_positions(library: Path, tmp_path: Path) -> None:
    """Positions are mostly those that were given; three times their displacement is a wrong scale nevertheless."""
    folder = resubmit(tmp_path / "particles", "tiny-particles", {"test": 20}, write_particles)
    store = open_dataset("tiny-particles")
    before = store.take(store.split("test").indices(20)).items["positions"]
    path = folder / "predictions/only-0/test.h5"
    rewrite(path, lambda file: file["positions"].__setitem__(..., before + 3 * (file["positions"][...] - before)))
    (flag,) = check(folder).flagged
    assert "'positions' fits its labels better when multiplied by 0.3" in str(flag)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.booleans())
def test_sums_of_an_agreement_are_those_of_all_values_together(seed: int, factor: float, moved: bool) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels, origin = rng.normal(size=(3, 60, 3))
    labels[rng.random((60, 3)) < 0.2] = predicted[0, 0]
    found = Agreement()
    for part in np.array_split(np.arange(60), 4):
        found.add(predicted[part], labels[part], origin[part] if moved else 0.0)
    origin = origin if moved else np.zeros_like(origin)
    slow = sum(
        (factor * (p - o) - (t - o)) ** 2 for p, t, o in zip(predicted.flat, labels.flat, origin.flat, strict=True)
    )
    assert found.missed(factor) == pytest.approx(slow, rel=1e-9)
    assert found.count == 180
    assert found.equal == sum(p == t for p, t in zip(predicted.flat, labels.flat, strict=True))


@given(st.integers(0, 10**6), st.floats(0.02, 2.0), st.sampled_from(["noisy", "cautious"]))
def test_models_with_honest_errors_are_not_suspicious(seed: int, noise: float, kind: str) -> None:
    """Neither where errors come on top of labels nor where predictions are the part of them that is known."""
    rng = np.random.default_rng(seed)
    known, rest = rng.normal(size=(2, 400, 3))
    found = Agreement()
    found.add(*((known + noise * rest, known) if kind == "noisy" else (known, known + noise * rest)))
    assert [*of_agreements({"forces": found})] == []


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (1 / 27.2114, "Hartree instead of eV"),
        (27.2114, "eV converted from Hartree twice"),
        (1e3, "a thousandth of the unit"),
        (1e-3, "a thousand times the unit"),
        (23.0605, "kcal/mol instead of eV"),
        (0.529177 / 27.2114, "Hartree/bohr instead of eV/Å"),
        (-1.0, "the other sign"),
        (7.0, "units or a scale of its own"),
    ],
)
@given(seed=st.integers(0, 10**6), noise=st.floats(1e-3, 0.2))
def test_a_wrong_unit_is_named_whatever_the_noise(factor: float, name: str, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    labels, rest = rng.normal(size=(2, 400, 3))
    found = Agreement()
    found.add((labels + noise * rest) * factor, labels)
    (clause,) = of_agreements({"forces": found})
    assert name in clause


def test_one_model_is_told_from_another_of_the_same_quality(submission: Path) -> None:
    """Models that know nothing, or nearly everything, have much in common, but not their errors."""
    places = []
    for seed, name in enumerate(("first", "second"), start=1):
        runs = {"good-0": 1e-3, "poor-0": 30.0}
        places.append(write_submission(submission.with_name(name), runs, seed=seed))
    assert similar(places[0], [places[1], submission]) == ()
    store = open_dataset("tiny-molecules")
    predict(store, places[1] / "predictions/poor-0/test.h5", "test", 12, 1e-3, 100)
    (found,) = similar(places[0], [places[1], submission])
    assert str(found) == ("good-0/test: errors correlate at 1.00000 with those of second/poor-0; is it one model?")


def test_others_that_cannot_be_read_are_passed_over(submission: Path) -> None:
    broken = write_submission(submission.with_name("broken"), seed=3)
    (broken / "predictions/small-0/test.h5").write_bytes(b"")
    (submission.with_name("empty")).mkdir()
    assert similar(submission, [broken, submission.with_name("empty")]) == ()
    (broken / "submission.yaml").write_text("[")
    assert check(submission).flagged == ()
