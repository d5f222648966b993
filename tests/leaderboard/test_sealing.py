"""Sealed test sets: nothing of the labels in what is published, the shifts of the public set, and models that run."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from scisci.contracts.errors import UserError
from scisci.data.library import open_dataset, read_card
from scisci.data.series import steps
from scisci.data.store import Store
from scisci.generate import charged_nbody, pm_halos, xtb_molecules
from scisci.leaderboard.sealing import LABELS, read_seed, seal, sealed_windows
from scisci.tasks.baselines.cli import main as baseline
from scisci.tasks.cli import main
from scisci.tasks.evaluate_cli import main as evaluate

SECRET = "4f1c8ba27d03e9566f9b0c7a1d2e384550617283948a5b6c7d8e9fa0b1c2d3e4"
HORIZON = 32
SMALLER = replace(pm_halos.STANDARD, side=64.0, particles=32, mesh=64)
SEALED = {
    "charged-nbody": {},
    "flowing-sensors": {"horizon": 20},
    "chaos": {"horizon": HORIZON},
    "pm-halos": {"splits": ["test", "ood_density"]},
    "xtb-crystals": {"splits": ["test", "ood_composition"]},
    "xtb-molecules": {"splits": ["ood_molecule"]},
}
SAMPLES = 2
QUIET = ["--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def seed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "seed"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, seed_file: Path) -> dict[str, tuple[Path, list[str]]]:
    """Data set → folder of its sealed set, and what was logged meanwhile."""
    root, found = tmp_path_factory.mktemp("sealed"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pm_halos,
            "POPULATIONS",
            {name: replace(population, box=SMALLER) for name, population in pm_halos.POPULATIONS.items()},
        )
        for name, options in SEALED.items():
            lines: list[str] = []
            seal(name, seed_file, root / name, samples=SAMPLES, log=lines.append, **options)
            found[name] = root / name, lines
    return found


@pytest.fixture(params=SEALED)
def dataset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(made: dict[str, tuple[Path, list[str]]], dataset: str) -> Path:
    return made[dataset][0]


def test_inputs_are_the_samples_without_their_labels(dataset: str, folder: Path) -> None:
    inputs, labels = Store(folder / "inputs.h5"), Store(folder / "labels.h5")
    hidden = set(LABELS[labels.domain])
    assert set(labels.fields) - set(inputs.fields) == hidden & set(labels.fields)
    assert labels.h5(0).attrs["dataset"] == dataset
    assert labels.h5(0).attrs["sealed_inputs"] == inputs.fingerprint != labels.fingerprint
    seen, full = inputs.take(np.arange(len(inputs))), labels.take(np.arange(len(labels)))
    np.testing.assert_array_equal(seen.offsets, full.offsets)
    for name, values in (seen.items | seen.samples).items():
        if name not in ("masses", "values"):
            np.testing.assert_array_equal(values, (full.items | full.samples)[name])
    assert inputs.groups == labels.groups
    assert stat.S_IMODE((folder / "labels.h5").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["inputs.h5", "labels.h5"]


def test_splits_are_the_test_splits_of_the_card(dataset: str, folder: Path) -> None:
    card = read_card(dataset)
    tests = {name for name in card.splits if name == "test" or name.startswith("ood_")}
    for path in ("inputs.h5", "labels.h5"):
        store = Store(folder / path)
        assert set(store.splits) == set(SEALED[dataset].get("splits", tests))
        for name, split in store.splits.items():
            assert split.size == SAMPLES
            if split.severity_column is None:
                assert split.severity == card.splits[name].severity
            else:
                assert np.isfinite(split.severities()).all()
            # The card of the molecules says more than their store.
            if name != "test" and dataset != "xtb-molecules":
                assert split.shift == card.splits[name].shift
        np.testing.assert_array_equal(
            np.sort(np.concatenate([split.indices() for split in store.splits.values()])), np.arange(len(store))
        )


def test_no_label_is_among_the_bytes_of_the_inputs(folder: Path) -> None:
    content, labels = (folder / "inputs.h5").read_bytes(), Store(folder / "labels.h5")
    full = labels.take(np.arange(len(labels)))
    columns = full.items | full.samples
    for name in set(LABELS[labels.domain]) & set(columns):
        rows = columns[name].reshape(len(columns[name]), -1)
        for row in rows[np.abs(rows).max(axis=1) > 0]:
            assert row.tobytes() not in content
    # That the search would find them: a sample's positions, or what is known of a series, are there.
    visible = columns["positions"][:1] if "positions" in columns else columns["values"][:2]
    assert visible.tobytes() in content


@pytest.mark.parametrize("name", ["flowing-sensors", "chaos"])
def test_of_series_the_last_steps_are_hidden_and_no_others(made: dict[str, tuple[Path, list[str]]], name: str) -> None:
    folder, horizon = made[name][0], int(SEALED[name]["horizon"])
    seen, full = (Store(folder / file) for file in ("inputs.h5", "labels.h5"))
    for k in range(len(seen)):
        ours, theirs = (store.take(np.array([k])) for store in (seen, full))
        shape = (int(ours.samples["channels"][0]), int(steps(ours)[0]))
        ours, theirs = (part.items["values"].reshape(shape) for part in (ours, theirs))
        assert np.isfinite(theirs).all()
        assert np.isnan(ours[:, -horizon:]).all()
        np.testing.assert_array_equal(ours[:, :-horizon], theirs[:, :-horizon])


def test_masses_are_in_order_and_say_nothing_else(made: dict[str, tuple[Path, list[str]]]) -> None:
    seen, full = (Store(made["pm-halos"][0] / file) for file in ("inputs.h5", "labels.h5"))
    ours, theirs = (store.take(np.arange(len(store))).items["masses"] for store in (seen, full))
    assert len(np.unique(theirs)) > 20
    np.testing.assert_array_equal(np.unique(ours), np.arange(1, len(np.unique(theirs)) + 1))
    by_mass = np.argsort(theirs, kind="stable")
    np.testing.assert_array_equal(by_mass, np.argsort(ours, kind="stable"))
    np.testing.assert_array_equal(np.diff(theirs[by_mass]) > 0, np.diff(ours[by_mass]) > 0)


def rows_of(store: Store) -> set[bytes]:
    """What tells the samples of a store apart: the first positions, or the first steps."""
    field = "values" if store.domain == "series" else "positions"
    ragged = store.take(np.arange(len(store)))
    return {ragged.items[field][a : min(a + 8, b)].tobytes() for a, b in pairwise(ragged.offsets)}


@pytest.mark.parametrize("name", ["chaos", "xtb-molecules", "xtb-crystals", "pm-halos"])
def test_no_sample_is_of_the_public_set(made: dict[str, tuple[Path, list[str]]], name: str) -> None:
    sealed, public = Store(made[name][0] / "labels.h5"), open_dataset(name)
    assert len(rows_of(sealed)) == len(sealed)
    assert not rows_of(sealed) & rows_of(public)


def test_another_seed_makes_other_samples_and_the_same_one_the_same(
    made: dict[str, tuple[Path, list[str]]], seed_file: Path, tmp_path: Path
) -> None:
    charged_nbody.generate(tmp_path / "public.h5", only={"test": SAMPLES, "ood_speed1": SAMPLES})
    other = tmp_path / "other"
    other.write_text(SECRET[::-1])
    only = {"samples": SAMPLES, "splits": ["test", "ood_speed1"]}
    for name, secret in (("again", seed_file), ("renewed", other)):
        seal("charged-nbody", secret, tmp_path / name, **only)
    again, renewed = (Store(tmp_path / name / "inputs.h5") for name in ("again", "renewed"))
    assert rows_of(again) <= rows_of(Store(made["charged-nbody"][0] / "inputs.h5"))
    known = [rows_of(again), rows_of(renewed), rows_of(Store(tmp_path / "public.h5"))]
    assert len(set.union(*known)) == sum(len(rows) for rows in known) == 6 * SAMPLES


def test_molecules_are_divided_as_in_the_public_set(shipped: Store, made: dict[str, tuple[Path, list[str]]]) -> None:
    """Were they divided by the secret seed, molecules of training would count as new ones."""
    groups = shipped.sample_column("group")
    jobs = xtb_molecules.new_tests(dict.fromkeys(("test", "ood_600K", "ood_molecule", "ood_size"), 64))
    for split in ("test", "ood_600K", "ood_molecule", "ood_size"):
        public = {shipped.groups[k] for k in np.unique(groups[shipped.split(split).indices()])}
        assert {name for (name, _), parts in jobs.items() if split in parts} == public
        assert sum(parts[split].stop for parts in jobs.values() if split in parts) == 64
    trained = {shipped.groups[k] for k in np.unique(groups[shipped.split("train").indices()])}
    assert not trained & set(Store(made["xtb-molecules"][0] / "inputs.h5").groups)


def test_systems_are_divided_as_in_the_public_set(made: dict[str, tuple[Path, list[str]]]) -> None:
    sealed, public = Store(made["chaos"][0] / "labels.h5"), open_dataset("chaos")
    for name, split in sealed.splits.items():
        ours, theirs = (
            {store.groups[k] for k in store.sample_column("group")[store.split(name).indices()]}
            for store in (sealed, public)
        )
        assert len(ours) == split.size
        assert ours <= theirs


def test_the_seed_is_derived_as_documented(seed_file: Path, tmp_path: Path) -> None:
    expected = hashlib.sha256(b"scisci sealed set:chaos:" + SECRET.encode()).hexdigest()
    assert read_seed(seed_file, "chaos") == int(expected, 16)
    assert read_seed(seed_file, "pm-halos") != read_seed(seed_file, "chaos")
    longer = tmp_path / "longer"
    longer.write_bytes(bytes(range(256)) * 40)
    assert read_seed(longer, "chaos") < 2**256


def test_all_of_the_seed_reaches_the_boxes() -> None:
    """Seeds that agree in their last 32 bits make boxes with other phases and other parameters."""
    population = replace(pm_halos.POPULATIONS["test"], boxes=4)
    one, other = (pm_halos.jobs("test", population, 7 + (k << 200)) for k in (1, 2))
    assert not {job.seed for job in one} & {job.seed for job in other}
    assert not {job.omega_m for job in one} & {job.omega_m for job in other}
    assert min(job.seed for job in one) > 2**200


def test_the_seed_is_neither_logged_nor_written(
    made: dict[str, tuple[Path, list[str]]], seed_file: Path, dataset: str, folder: Path
) -> None:
    seed = read_seed(seed_file, dataset)
    said = "\n".join(made[dataset][1])
    told = [SECRET, str(seed), f"{seed:x}", f"{seed:X}"]
    assert not any(text in said for text in told)
    for path in folder.iterdir():
        content = path.read_bytes()
        raw = [text.encode() for text in told] + [seed.to_bytes(32, "little"), seed.to_bytes(32, "big")]
        assert not any(text in content for text in raw)


@pytest.mark.parametrize("secret", ["", "1234", SECRET[:31], "0" * 64, "abcabcab" * 12])
def test_seeds_that_could_be_guessed_are_refused(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "seed"
    path.write_text(secret)
    with pytest.raises(UserError, match=f"the seed in {path} could be guessed; make one with 'openssl rand -hex 32"):
        seal("charged-nbody", path, tmp_path / "out", samples=1)
    assert list(tmp_path.iterdir()) == [path]


def refusals() -> Iterator[tuple[str, dict[str, object], str]]:
    yield "charged-nbdy", {}, "did you mean 'charged-nbody'"
    yield "science-series", {"horizon": 8}, "is of measured records"
    yield "charged-nbody", {"splits": ["ood_speed3"]}, "unknown test split of charged-nbody 'ood_speed3'; did you mean"
    yield "charged-nbody", {"splits": ["train"]}, "unknown test split"
    yield "charged-nbody", {"samples": 0}, "leave nothing to score"
    yield "charged-nbody", {"horizon": 8}, "for series, and for them alone"
    yield "flowing-sensors", {}, "give a horizon of at least 1"
    yield "flowing-sensors", {"horizon": 0}, "give a horizon of at least 1"
    yield "flowing-sensors", {"horizon": 30, "samples": 1}, "sample 0 has 30 steps, which leaves none before a horizon"


@pytest.mark.parametrize(("name", "options", "words"), list(refusals()))
def test_what_cannot_be_sealed_is_said_and_leaves_nothing(
    seed_file: Path, tmp_path: Path, name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        seal(name, seed_file, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(seed_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        seal("charged-nbody", seed_file, tmp_path / "out", samples=1)
    with pytest.raises(UserError, match="cannot read the seed from"):
        seal("charged-nbody", tmp_path / "none", tmp_path / "other", samples=1)
    assert not list((tmp_path / "out").iterdir())


def predicted(run: Path, store: Path, out: Path, *options: str) -> dict[str, dict[str, np.ndarray]]:
    main(["predict", "--run", str(run), f"--data.dataset={store}", "--data.test_splits=null", f"--out={out}", *options])
    found = {}
    for path in out.iterdir():
        with h5py.File(path) as file:
            found[path.stem] = {name: node[...] for name, node in file.items()}
            assert file.attrs["fingerprint"] == Store(store).fingerprint
    return found


def fitted(store: Path, runs: Path, *options: str) -> Path:
    few = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.symmetry_samples=0", *QUIET]
    main(["fit", f"--data.dataset={store}", f"--runs={runs}", "--data.test_splits=[test]", *few, *options])
    (run,) = runs.iterdir()
    return run


@pytest.mark.parametrize(
    ("name", "stored", "options"),
    [
        ("xtb-molecules", "small_store", ["--model.architecture=schnet", "--model.size=3k"]),
        ("charged-nbody", "particle_store", []),
        ("chaos", "series_store", ["--model.context=48", f"--model.horizon={HORIZON}"]),
    ],
)
def test_models_predict_from_inputs_alone_what_they_do_beside_labels(
    made: dict[str, tuple[Path, list[str]]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
    stored: str,
    options: list[str],
) -> None:
    run = fitted(request.getfixturevalue(stored), tmp_path / "runs", *options)
    sealed = made[name][0]
    options = ["--data.test_splits=[ood_molecule]"] if name == "xtb-molecules" else []
    blind = predicted(run, sealed / "inputs.h5", tmp_path / "blind", *QUIET, *options)
    beside = predicted(run, sealed / "labels.h5", tmp_path / "beside", *QUIET, *options)
    assert blind.keys() == beside.keys() == set(Store(sealed / "inputs.h5").splits)
    assert not (run / "predictions").exists()
    with h5py.File(sealed / "labels.h5") as labels:
        for split, columns in blind.items():
            count = np.ones(len(columns["ids"]), dtype=bool)
            if name == "chaos":
                times = steps(Store(sealed / "labels.h5").take(columns["ids"]))
                count = sealed_windows(labels, times, columns["start"], HORIZON)
                # One window of each series, its last, of which the inputs hold all of the past.
                assert columns["ids"][count].tolist() == Store(sealed / "labels.h5").split(split).indices().tolist()
                assert (times[count] - columns["start"][count] == HORIZON).all()
                with pytest.raises(UserError, match=f"forecasts are of 8 steps, but {HORIZON} are sealed"):
                    sealed_windows(labels, times, columns["start"], 8)
            points = np.repeat(count, np.diff(columns["offsets"]))
            for column, values in columns.items():
                rows = points if len(values) == len(points) else count
                if column != "offsets":
                    np.testing.assert_array_equal(values[rows], beside[split][column][rows], err_msg=column)
    if name != "chaos":
        with pytest.raises(UserError, match="which training needs"):
            main(["test", "--run", str(run), f"--data.dataset={sealed / 'inputs.h5'}", *QUIET, *options])
        with pytest.raises(UserError, match="--out says where predictions go, and test writes none"):
            main(["test", "--run", str(run), f"--out={tmp_path}"])


@pytest.mark.parametrize(("name", "calculator"), [("xtb-molecules", "emt:EMT"), ("xtb-crystals", "lj:LennardJones")])
def test_outside_models_predict_from_inputs_alone(
    made: dict[str, tuple[Path, list[str]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    calculator: str,
) -> None:
    split, found = SEALED[name]["splits"][-1], {}
    for file in ("inputs", "labels"):
        path = made[name][0] / f"{file}.h5"
        options = [f"--calculator=ase.calculators.{calculator}", f"--data={path}", f"--out={tmp_path / file}"]
        evaluate([*options, "--split", split])
        assert ("has no labels, and so nothing was measured" in capsys.readouterr().out) == (file == "inputs")
        with h5py.File(tmp_path / file / f"{split}.h5") as predictions:
            found[file] = {quantity: node[...] for quantity, node in predictions.items()}
    assert ("stress" in found["inputs"]) == (name == "xtb-crystals")
    assert found["inputs"].keys() == found["labels"].keys()
    for quantity, values in found["inputs"].items():
        np.testing.assert_array_equal(values, found["labels"][quantity])


def test_baselines_predict_from_inputs_alone(made: dict[str, tuple[Path, list[str]]], tmp_path: Path) -> None:
    baseline(["fit", "halo_count", "--data", "pm-halos", "--target", "parameters", "--runs", str(tmp_path / "runs")])
    (run,), sealed = (tmp_path / "runs").iterdir(), made["pm-halos"][0]
    blind, beside = (predicted(run, sealed / f"{name}.h5", tmp_path / name) for name in ("inputs", "labels"))
    assert blind.keys() == {"test", "ood_density"}
    for split, columns in blind.items():
        assert len(columns["omega_m"]) == SAMPLES
        for column, values in columns.items():
            np.testing.assert_array_equal(values, beside[split][column])
