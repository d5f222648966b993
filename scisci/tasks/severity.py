"""Error against the severity of a shift: predictions held against labels, sample by sample, in bins of severity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.data.shifts import Setting, measure, shift_named
from scisci.data.store import Store
from scisci.tasks.metrics import Relative, Shares, ratio_estimate
from scisci.tasks.scoring import errors_of, reading

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


def read_predicted(store: Store, path: Path) -> Predicted:
    """Hold a predictions file against the labels of `store`.

    `UserError` if it is not a predictions file, is of another store, or lacks a quantity of the domain.
    """
    with reading(path) as file:
        errors = errors_of(store, file, path)
        split, ids = str(file.attrs["split"]), file["ids"][...]
    scored = {}
    for name, kind, numerators, weights in errors.parts():
        # Of these there is no sum over the samples of a bin: they are means over whole series.
        if kind is Relative:
            continue
        if kind is Shares:
            # Of the variance over the whole split, so that a bin of similar labels is no harder than another one.
            weights = np.full(len(weights), weights.var())
            numerators = weights - numerators if name.endswith("_r2") else numerators
        scored[name] = (numerators, weights)
    return Predicted(split, ids, errors.groups, scored)


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
