"""Conformers of one molecule kept as arrays with a row each, as npz and HDF5 data sets keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.samples import AtomsSample
from scisci.sources.frames import BadFrame, Frame, checked
from scisci.sources.labels import NONE

BLOCK = 512


@dataclass(frozen=True)
class Column:
    """An array of a file. `blocks` reads it anew, `BLOCK` rows at a time, so that it is never in memory whole."""

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Quantity:
    """The name an array has in the file, and the factor that takes it to Å, eV or eV/Å."""

    name: str
    factor: float = 1.0


def chosen(defaults: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The array of each label to be read: `given` goes before `defaults`, and `none` leaves a label out."""
    for label in given:
        if label not in defaults:
            raise unknown_name("label in --key", label, defaults)
    return {label: name for label, name in {**defaults, **given}.items() if name != NONE}


def _check(columns: Mapping[str, Column], wanted: Mapping[str, Quantity], where: str) -> None:
    found = f"it has {', '.join(sorted(columns)) or 'nothing'}"
    for what, quantity in wanted.items():
        if quantity.name not in columns:
            choice = f"; name the right one with --key {what}=NAME, or import without it with --key {what}={NONE}"
            remedy = choice if what in ("energy", "forces") else "; give a file that has them"
            raise UserError(f"{where} has no {what} under {quantity.name}; {found}{remedy}")
        if columns[quantity.name].dtype.kind not in "biuf":
            raise UserError(
                f"{quantity.name} of {where} is not numbers but text or pickled objects, and unpickling runs whatever"
                " code a file holds; save it as numbers"
            )
    shapes = {what: columns[quantity.name].shape for what, quantity in wanted.items()}
    atoms, rows = shapes["numbers"][:1], shapes["positions"][:1]
    expected = {"numbers": atoms, "positions": (*rows, *atoms, 3), "energy": rows, "forces": (*rows, *atoms, 3)}
    if all(shape[:1] == (0,) for what, shape in shapes.items() if what != "numbers"):
        return  # SPICE's downloader keeps a molecule none of whose conformers it kept
    for what, shape in shapes.items():
        if shape != expected[what] and not (what == "energy" and shape == (*rows, 1)):
            name = wanted[what].name
            raise UserError(
                f"{where} has {name} in shape {shape} instead of {expected[what]}; {found}; correct the file"
            )


def conformers(
    columns: Mapping[str, Column],
    wanted: Mapping[str, Quantity],
    where: str,
    group: str,
    charge: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[Frame | BadFrame]:
    """Yield a frame per row of `columns`, the arrays that `where` has.

    `wanted` says which of them are `numbers` [N], `positions` [n, N, 3], `energy` [n] or [n, 1] and `forces`
    [n, N, 3]. A label that is NaN was not computed, so its row is a `BadFrame`. `UserError` for an array that is
    absent, has another shape, or is not numbers.
    """
    _check(columns, wanted, where)
    numbers = np.concatenate([np.empty(0, np.int64), *columns[wanted["numbers"].name].blocks()])
    rows = {what: quantity for what, quantity in wanted.items() if what != "numbers"}
    count = 0
    for blocks in zip(*(columns[quantity.name].blocks() for quantity in rows.values()), strict=True):
        values = {what: block.astype(np.float64) * rows[what].factor for what, block in zip(rows, blocks, strict=True)}
        for k in range(len(blocks[0])):
            place, row = f"frame {count + k} of {where}", {what: value[k] for what, value in values.items()}
            if lost := [rows[what].name for what in row if what != "positions" and np.isnan(row[what]).any()]:
                yield BadFrame(place, f"{lost[0]} was not computed (it is NaN)")
                continue
            if "energy" in row:
                row["energy"] = row["energy"].item()
            yield checked(Frame(place, AtomsSample(numbers, charge=charge, **row), group, metadata or {}))
        count += len(blocks[0])
