"""Predictions that are not of what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .registry import attribute, change, first_run, refused


@refused("is for data with the fingerprint '000000")
def fingerprint_of_other_data_in_the_file(folder: Path) -> None:
    attribute(folder, "fingerprint", "0" * 64)


@refused("run small-0: its fingerprint is not that of 'tiny-molecules'")
def fingerprint_of_other_data(folder: Path) -> None:
    first_run(folder, fingerprint="0" * 64)


@refused("says it is for the split 'train'")
def predictions_for_another_split(folder: Path) -> None:
    attribute(folder, "split", "train")


@refused("is of schema_version 2, of a newer scisci; update with")
def file_of_a_newer_version(folder: Path) -> None:
    attribute(folder, "schema_version", 2)


@refused("has the format 'scisci-store'")
def another_format(folder: Path) -> None:
    attribute(folder, "format", "scisci-store")


@refused("has nan in row 7 of 'forces'; every value must be finite")
def not_a_number(folder: Path) -> None:
    change(folder, "forces", lambda values: np.where(np.arange(len(values))[:, None] == 7, np.nan, values))


@refused("has -inf in row 3 of 'energy'")
def infinite(folder: Path) -> None:
    change(folder, "energy", lambda values: np.where(np.arange(12) == 3, -np.inf, values))


@refused("has 1e+300 in row 0 of 'energy'")
def overflowing(folder: Path) -> None:
    change(folder, "energy", lambda values: np.full(12, 1e300))


@refused("lacks 1 samples (such as")
def missing_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: ids[:-1])


@refused("that are not among the first 12 of 'test'; leave these out")
def extra_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.append(ids, 0))


@refused("more than once; predict each once")
def duplicate_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.append(ids[:-1], ids[0]))


@refused("has the samples of 'test' in another order")
def shuffled_ids(folder: Path) -> None:
    change(folder, "ids", lambda ids: ids[::-1])


@refused("has 120 rows for 12 samples of 'test'")
def ids_tenfold(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.tile(ids, 10))


@refused("offsets that are not those of its samples' points, from row 0 on")
def shifted_offsets(folder: Path) -> None:
    change(folder, "offsets", lambda offsets: offsets + np.where((offsets > 0) & (offsets < offsets[-1]), 1, 0))


@refused("offsets for 12 rows; there is one more than rows")
def few_offsets(folder: Path) -> None:
    change(folder, "offsets", lambda offsets: offsets[:-1])


@refused("has 11 rows of 'energy', not 12")
def few_energies(folder: Path) -> None:
    change(folder, "energy", lambda values: values[:-1])


@refused("write rows of shape [3]")
def forces_in_a_plane(folder: Path) -> None:
    change(folder, "forces", lambda values: values[:, :2])


@refused("has the array 'forces' of another rank than 2")
def flat_forces(folder: Path) -> None:
    change(folder, "forces", lambda values: values.ravel())
