"""Predictions held against labels: the errors of a predictions file, as they were when it was written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from scisci.contracts.errors import UserError
from scisci.data.batch import assemble, graph_batch
from scisci.data.series import SeriesDataset, checked_times
from scisci.data.store import Store
from scisci.tasks.heaviest import heaviest
from scisci.tasks.metrics import (
    PARAMETERS,
    Accumulator,
    SampleErrors,
    infilling_errors,
    parameter_errors,
    particle_errors,
    potential_errors,
    velocity_errors,
)
from scisci.tasks.predictions import OPTIONS
from scisci.tasks.series_metrics import of_steps, series_errors

BATCH, WINDOWS = 1024, 64
# The samples of some windows, and their batch → which of them are scored.
Counts = Callable[[np.ndarray, Any], np.ndarray]


@dataclass(frozen=True)
class Scoring:
    """What a predictions file of a domain may be about: the quantities it must hold then, and how they are scored."""

    domain: str
    quantities: tuple[str, ...]
    fields: tuple[str, ...]
    """what the store must hold"""
    errors: SampleErrors


SCORINGS = (
    Scoring("atoms", ("energy", "forces"), ("energy", "forces"), potential_errors),
    Scoring("particles", ("positions",), ("target_positions",), particle_errors),
    Scoring("cloud", ("velocities",), ("velocities",), velocity_errors),
    Scoring("cloud", PARAMETERS, PARAMETERS, parameter_errors),
    Scoring("tree", PARAMETERS, PARAMETERS, parameter_errors),
    Scoring("tree", ("infilling",), ("label",), infilling_errors),
    Scoring("series", ("mean", "quantiles", "start"), ("values",), series_errors),
)
PER_SYSTEM = ("energy", "stress", "start", *PARAMETERS)
PER_POINT = ("forces", "positions", "velocities", "infilling", "mean", "quantiles")


def scoring(store: Store, held: Container[str], path: Path) -> Scoring:
    """How predictions of a store's samples are scored; `UserError` if they lack a quantity, or the store its label."""
    known = [one for one in SCORINGS if one.domain == store.domain]
    if not known:
        domains = ", ".join(dict.fromkeys(one.domain for one in SCORINGS))
        raise UserError(f"predictions for the domain {store.domain!r} cannot be scored; choose data of: {domains}")
    found = max(known, key=lambda one: sum(name in held for name in one.quantities))
    if absent := [name for name in found.quantities if name not in held]:
        raise UserError(f"{path} has no {' and no '.join(absent)}; predict again")
    if absent := [name for name in found.fields if name not in store.fields]:
        raise UserError(f"{store.path} has no {' and no '.join(absent)} to score {path} by; give other data")
    return found


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a predictions file of one's own making; `UserError` if it is none."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is not a readable predictions file; write one with 'scisci predict'") from error
    with file:
        yield file


@dataclass(frozen=True)
class View:
    """How a model sees the samples of a store: the `heaviest` points alone, or windows of series."""

    heaviest: int | None = None
    context: int | None = None
    horizon: int | None = None

    @classmethod
    def of(cls, file: h5py.File, path: Path) -> View:
        """That of a predictions file, out of its attributes, which are texts."""
        given = {name: file.attrs[name] for name in OPTIONS if name in file.attrs}
        if wrong := [name for name, value in given.items() if not str(value).isdecimal() or int(value) < 1]:
            raise UserError(f"{path} gives {given[wrong[0]]!r} as its {wrong[0]}; predict again")
        return cls(**{name: int(value) for name, value in given.items()})

    def batches(self, store: Store, indices: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
        """The samples at `indices`, few at a time, without edges, or all windows of these series; and of which each is.

        `UserError` for series if context or horizon is not known.
        """
        if store.domain == "series":
            if self.context is None or self.horizon is None:
                raise UserError("predictions of series need the attributes context and horizon; predict again")
            # A context is read in whole, and what lies before a series says nothing.
            context = min(self.context, int(checked_times(store, indices, self.horizon).max(initial=1)))
            windows = SeriesDataset(store, indices, context, self.horizon, rolling=True)
            for start in range(0, len(windows), WINDOWS):
                chosen = list(range(start, min(start + WINDOWS, len(windows))))
                yield windows.samples[chosen], windows.__getitems__(chosen)
            return
        for start in range(0, len(indices), BATCH):
            few = indices[start : start + BATCH]
            batch = graph_batch(store.take(few), cutoff=0)
            yield few, batch if self.heaviest is None else heaviest(batch, self.heaviest)


def errors_of(
    store: Store, file: h5py.File, path: Path, fingerprint: str | None = None, counts: Counts | None = None
) -> Accumulator:
    """Hold an open predictions file against the labels of `store`, in slices: `compute` gives what a run records.

    `path` is its name in messages, `fingerprint` that of the data it must be of, if not the store's own, and `counts`
    says which windows of series are scored, if not all. `UserError` if it is not a predictions file, is of other data,
    or lacks a quantity of the domain or rows.
    """
    if file.attrs.get("format") != "scisci-predictions":
        raise UserError(f"{path} is not a predictions file; write one with 'scisci predict'")
    if file.attrs.get("fingerprint") != (fingerprint or store.fingerprint):
        raise UserError(f"{path} is for other data than {store.path} (the fingerprints differ); predict again")
    accumulator = Accumulator(scoring(store, file, path).errors)
    ids, offsets = _rows(store, file, path)
    samples, start = ids[np.sort(np.unique(ids, return_index=True)[1])], 0
    for rows, batch in View.of(file, path).batches(store, samples):
        part, points = slice(start, start + len(rows)), offsets[start : start + len(rows) + 1]
        if not np.array_equal(ids[part], rows):
            raise UserError(f"{path} has not one row for each sample, or window of a series; predict again")
        lengths = batch.channels * batch.future.shape[-1] if "future" in batch else batch.ptr.diff()
        if not np.array_equal(np.diff(points), lengths.numpy()):
            raise UserError(f"{path} has another number of points than the samples it is for; predict again")
        outputs = _outputs(file, part, slice(points[0], points[-1]), batch, path)
        if counts is not None:
            outputs, batch = kept_windows(outputs, batch, counts(rows, batch))
        if batch.num_graphs:
            accumulator.update(outputs, batch)
        start = part.stop
    if start != len(ids):
        raise UserError(f"{path} has {len(ids)} rows for {start} samples or windows; predict again")
    return accumulator


def kept_windows(outputs: dict[str, torch.Tensor], batch: Any, kept: np.ndarray) -> tuple[dict[str, torch.Tensor], Any]:
    """Those windows of a batch, and of what is said of them, that are `kept` [B]."""
    index, count = torch.from_numpy(kept), int(kept.sum())
    tensors = {name: value[index] for name, value in batch.to_dict().items() if name not in ("batch", "ptr")}
    tensors |= {"batch": torch.arange(count), "ptr": torch.arange(count + 1)}
    return {name: value[index] for name, value in outputs.items()}, assemble(tensors)


def _rows(store: Store, file: h5py.File, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`ids` and `offsets` of a file; `UserError` unless all arrays have the rows that these speak of.

    h5py reads past the end of an array without a word.
    """
    if absent := [name for name in ("ids", "offsets") if name not in file]:
        raise UserError(f"{path} has no {' and no '.join(absent)}; predict again")
    ids, offsets = file["ids"][...], file["offsets"][...]
    if not len(ids) or len(offsets) != len(ids) + 1 or offsets[0] != 0:
        raise UserError(f"{path} does not say of every sample where its points begin; predict again")
    if not 0 <= ids.min() <= ids.max() < len(store):
        raise UserError(f"{path} is for samples that {store.path} does not have; predict again")
    wanted = dict.fromkeys(PER_SYSTEM, len(ids)) | dict.fromkeys(PER_POINT, offsets[-1])
    if wrong := [name for name, count in wanted.items() if name in file and len(file[name]) != count]:
        raise UserError(f"{path} has {len(file[wrong[0]])} rows of {wrong[0]}, not {wanted[wrong[0]]}; predict again")
    return ids, offsets


def _outputs(file: h5py.File, samples: slice, points: slice, batch: Any, path: Path) -> dict[str, torch.Tensor]:
    """A model's outputs for some samples, from its predictions."""
    found = {name: torch.from_numpy(file[name][samples]) for name in PER_SYSTEM if name in file}
    found |= {name: torch.from_numpy(file[name][points]) for name in PER_POINT if name in file}
    if "positions" in found:
        found["displacement"] = found["positions"].double() - batch.pos.double()
    if "future" in batch:
        if not torch.equal(found["start"].long(), batch.start):
            raise UserError(f"{path} has forecasts that begin at other steps than the windows of its samples")
        found = of_steps(found, batch)
    return found
