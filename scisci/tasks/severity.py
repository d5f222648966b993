"""Error against the severity of a shift: predictions held against labels, sample by sample, in bins of severity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.data.batch import graph_batch
from scisci.data.shifts import Setting, measure, shift_named
from scisci.data.store import Store
from scisci.tasks.heaviest import heaviest
from scisci.tasks.metrics import (
    PARAMETERS,
    SampleErrors,
    Shares,
    infilling_errors,
    parameter_errors,
    particle_errors,
    potential_errors,
    ratio_estimate,
    velocity_errors,
)

BATCH = 1024
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("shift", pa.string()),
        ("unit", pa.string()),
        ("split", pa.string()),
        ("bin", pa.int64()),
        ("severity", pa.float64()),
        ("severity_min", pa.float64()),
        ("severity_max", pa.float64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("se", pa.float64()),
        ("se_groups", pa.float64()),
        ("n", pa.int64()),
        ("groups", pa.int64()),
    ],
    metadata={"scisci_severity_version": "1"},
)


@dataclass(frozen=True)
class Predicted:
    """One predictions file held against the labels: per sample, what each metric is the ratio of sums of."""

    split: str
    ids: np.ndarray
    groups: np.ndarray
    errors: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """metric → (numerators, weights), [n] each, or [n, K] of a mean of K ratios"""


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
)
PER_SYSTEM, PER_POINT = ("energy", "stress", *PARAMETERS), ("forces", "positions", "velocities", "infilling")


def scoring(store: Store, file: h5py.File, path: Path) -> Scoring:
    """How predictions of a store's samples are scored; `UserError` if they lack a quantity, or the store its label."""
    known = [one for one in SCORINGS if one.domain == store.domain]
    if not known:
        domains = ", ".join(dict.fromkeys(one.domain for one in SCORINGS))
        raise UserError(f"predictions for the domain {store.domain!r} cannot be scored; choose data of: {domains}")
    found = max(known, key=lambda one: len(set(one.quantities) & file.keys()))
    if absent := set(found.quantities) - file.keys():
        raise UserError(f"{path} has no {' and no '.join(sorted(absent))}; predict again")
    if absent := set(found.fields) - set(store.fields):
        raise UserError(f"{store.path} has no {' and no '.join(sorted(absent))} to score {path} by; give other data")
    return found


def _outputs(file: h5py.File, samples: slice, batch: Any) -> dict[str, torch.Tensor]:
    """A model's outputs for some samples, from its predictions."""
    offsets = file["offsets"]
    points = slice(offsets[samples.start], offsets[samples.stop])
    found = {name: torch.from_numpy(file[name][samples]) for name in PER_SYSTEM if name in file}
    found |= {name: torch.from_numpy(file[name][points]) for name in PER_POINT if name in file}
    if "positions" in found:
        found["displacement"] = found["positions"] - batch.pos
    return found


def read_predicted(store: Store, path: Path) -> Predicted:
    """Hold a predictions file against the labels of `store`, in slices.

    `UserError` if it is not a predictions file, is of another store, or lacks a quantity of the domain.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is not a readable predictions file; write one with 'scisci predict'") from error
    with file:
        if file.attrs.get("format") != "scisci-predictions":
            raise UserError(f"{path} is not a predictions file; write one with 'scisci predict'")
        if file.attrs["fingerprint"] != store.fingerprint:
            raise UserError(f"{path} is for other data than {store.path} (the fingerprints differ); predict again")
        errors = scoring(store, file, path).errors
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        shares, ids = set[str](), file["ids"][...]
        for start in range(0, len(ids), BATCH):
            samples = slice(start, min(start + BATCH, len(ids)))
            batch = graph_batch(store.take(ids[samples]), cutoff=0)
            if "heaviest" in file.attrs:
                batch = heaviest(batch, int(file.attrs["heaviest"]))
            if not np.array_equal(np.diff(file["offsets"][start : samples.stop + 1]), batch.ptr.diff().numpy()):
                raise UserError(f"{path} has another number of points than the samples it is for; predict again")
            for name, pair in errors(_outputs(file, samples, batch), batch).items():
                shares |= {name} if isinstance(pair, Shares) else set()
                parts[name].append((pair[0], pair[1]))
        split = str(file.attrs["split"])
    scored = {}
    for name, pairs in parts.items():
        numerators, weights = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
        if name in shares:
            # Of the variance over the whole split, so that a bin of similar labels is no harder than another one.
            weights = np.full(len(weights), weights.var())
            numerators = weights - numerators if name.endswith("_r2") else numerators
        scored[name] = (numerators, weights)
    return Predicted(split, ids, store.sample_column("group")[ids], scored)


def equal_count_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin [n] of each value, counted from 0: about equally full, except that equal values are never divided."""
    edges = np.quantile(values, np.arange(1, bins) / bins, method="lower")
    return np.unique(np.searchsorted(np.unique(edges), values, side="left"), return_inverse=True)[1]


def bin_rows(predicted: Predicted, severities: np.ndarray, bins: int) -> Iterator[dict[str, Any]]:
    """Rows of the table for one split: each metric in bins of `severities` [n], with its standard errors.

    The value is the ratio of sums over the bin's samples, as in all other tables; `se` is over samples, `se_groups`
    over whole groups, `None` where the bin has one group.
    """
    of_sample = equal_count_bins(severities, bins)
    for number in range(of_sample.max() + 1):
        inside = of_sample == number
        groups, graded = predicted.groups[inside], severities[inside]
        for name, (numerators, weights) in predicted.errors.items():
            if not weights[inside].any():
                continue
            estimate = ratio_estimate(numerators[inside], weights[inside], groups)
            yield {
                "split": predicted.split,
                "bin": number,
                "severity": graded.mean(),
                "severity_min": graded.min(),
                "severity_max": graded.max(),
                "metric": name,
                **estimate.model_dump(),
                "groups": len(np.unique(groups)),
            }


def shifts_of(store: Store, splits: Sequence[str]) -> dict[str, list[str]]:
    """Shift → those of `splits` to draw against it: the OOD splits that it made, and all in distribution."""
    inside = [name for name in splits if not name.startswith("ood_")]
    found: dict[str, list[str]] = {}
    for name in splits:
        column = store.split(name).severity_column
        if column is not None and name not in inside:
            found.setdefault(column.removeprefix("severity_"), [*inside]).append(name)
    return found


def severities(store: Store, shift: str) -> np.ndarray:
    """The severity [n] that the store keeps for a shift, or else measured now."""
    column = f"severity_{shift}"
    return store.metadata(column) if column in store.h5(0)["metadata"] else measure(Setting(store), shift)


def severity_table(
    store: Store, models: Mapping[str, Sequence[Path]], by: Sequence[str] = (), bins: int = 6
) -> pa.Table:
    """Error against severity for each model's predictions files: up to `bins` bins a split, all metrics.

    `by` names shifts, for which all splits are used; by default those that made the splits.
    """
    rows: list[dict[str, Any]] = []
    graded: dict[str, np.ndarray] = {}
    for model, paths in models.items():
        files = [read_predicted(store, path) for path in paths]
        splits = [file.split for file in files]
        wanted = dict.fromkeys(by, splits) if by else shifts_of(store, splits)
        if not wanted:
            raise UserError(f"the splits {', '.join(splits)} of {store.path} name no shift; choose one with --by")
        for shift, names in wanted.items():
            unit = shift_named(shift, store).unit
            if shift not in graded:
                graded[shift] = severities(store, shift)
            for file in files:
                if file.split in names:
                    own = graded[shift][file.ids]
                    if not np.isfinite(own).all():
                        raise UserError(
                            f"{shift!r} is not known for all of {file.split!r}; leave those predictions out"
                        )
                    of_split = bin_rows(file, own, bins)
                    rows += [{"model": model, "shift": shift, "unit": unit, **row} for row in of_split]
    return pa.Table.from_pylist(rows, SCHEMA)


def write_severity(path: Path, table: pa.Table) -> None:
    """Write the table as Parquet, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
