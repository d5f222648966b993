"""What is not wrong, but not right either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ..tiny import edit, write_submission
from .registry import FILE, change, first_run, flagged


@flagged("'energy' fits its labels better when multiplied by 27.21; it looks like Hartree instead of eV")
def energy_in_hartree(folder: Path) -> None:
    change(folder, "energy", lambda values: np.round(values / 27.2114, 6))


@flagged("it looks like a thousandth of the unit, such as meV or m/s")
def forces_thousandfold(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 1000)


@flagged("it looks like kcal/mol instead of eV")
def forces_in_kcal(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 23.0605)


@flagged("it looks like Hartree/bohr instead of eV/Å")
def forces_in_atomic_units(folder: Path) -> None:
    change(folder, "forces", lambda values: values / 51.4221, Path("predictions/large-0/test.h5"))


@flagged("it looks like eV/bohr instead of eV/Å")
def forces_per_bohr(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 0.529177, Path("predictions/large-0/test.h5"))


@flagged("it looks like the other sign, as of a gradient")
def gradients(folder: Path) -> None:
    change(folder, "forces", lambda values: -values)


@flagged("it looks like units or a scale of its own")
def forces_of_a_scale_of_their_own(folder: Path) -> None:
    change(folder, "forces", lambda values: 7 * values)


def labels(folder: Path) -> np.ndarray:
    from scisci.data.library import open_dataset

    store = open_dataset("tiny-molecules")
    return store.take(store.split("test").indices(12)).items["forces"]


@flagged("100% of the values of 'forces' equal their labels to rounding; were these copied?")
def copied_labels(folder: Path) -> None:
    change(folder, "forces", lambda values: labels(folder))


@flagged("of the values of 'forces' equal their labels to rounding")
def some_copied_labels(folder: Path) -> None:
    change(folder, "forces", lambda values: np.concatenate([labels(folder)[:20], values[20:]]))


@flagged("'forces' differs from its labels by 3e-05 of their size; were these copied?")
def copied_labels_with_noise(folder: Path) -> None:
    true = labels(folder)
    noise = 3e-5 * np.sqrt(np.square(true).mean()) * np.random.default_rng(0).normal(size=true.shape)
    change(folder, "forces", lambda values: (true.astype("f8") + noise).astype("f8"))


@flagged("small-0/test: reports force_mae 1, but its predictions give 2")
def forged_reports(folder: Path) -> None:
    first_run(folder, reported={"test": {"force_mae": 1.0}})


@flagged("training_data: contamination of the test splits is known, as its authors say")
def contamination(folder: Path) -> None:
    edit(folder, lambda content: content["training_data"].update(contamination="known"))


def beside(folder: Path, alter: Callable[[np.ndarray], np.ndarray]) -> None:
    """Another submission, of which one run has the same forces but for what `alter` does."""
    other = write_submission(folder.with_name("another"), {"theirs-0": 0.2}, seed=9)
    for split in ("test", "ood_600K"):
        with h5py.File(folder / f"predictions/small-0/{split}.h5") as file:
            forces = file["forces"][...]
        change(other, "forces", lambda _, forces=forces: alter(forces), Path(f"predictions/theirs-0/{split}.h5"))


@flagged("those of another/theirs-0; is it one model?")
def predictions_of_another_submission(folder: Path) -> None:
    beside(folder, lambda forces: forces)


@flagged("those of another/theirs-0; is it one model?")
def predictions_of_another_submission_with_noise_and_scale(folder: Path) -> None:
    beside(folder, lambda forces: 1.01 * forces + 3e-3 * np.random.default_rng(1).normal(size=forces.shape))


@flagged("large-0/test: errors correlate at 1.00000 with those of small-0")
def one_run_twice(folder: Path) -> None:
    shutil.copy(folder / FILE, folder / "predictions" / "large-0" / "test.h5")
