"""The results table: one row per run, split and metric; everything after the sweep reads only this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.contracts.run import RunResult, RunSpec

TABLE_VERSION = "3"
ADDED = ("se_groups", "shared")  # by versions 2 and 3
BATCH_ROWS = 65_536

RESULTS_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("study", pa.string()),
        ("domain", pa.string()),
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("treatment", pa.string()),
        ("size", pa.string()),
        ("params", pa.int64()),
        ("params_body", pa.int64()),
        ("data", pa.int64()),
        ("samples_seen", pa.int64()),
        ("flops", pa.float64()),
        ("seed", pa.int64()),
        ("lr", pa.float64()),
        ("split", pa.string()),
        ("severity", pa.float64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("se", pa.float64()),
        ("se_groups", pa.float64()),
        ("n", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
        ("peak_memory", pa.float64()),
        ("device", pa.string()),
        ("shared", pa.bool_()),
    ],
    metadata={"scisci_table_version": TABLE_VERSION},
)


# Columns in which the rows of one run differ.
OWN_COLUMNS = ("split", "severity", "metric", "value", "se", "se_groups", "n")


def rows(spec: RunSpec, result: RunResult) -> list[dict[str, Any]]:
    """The table rows of one run. A run that did not end well begins with one without split and metric."""
    one = _Columns()
    one.add(spec, result)
    found: list[dict[str, Any]] = one.table().to_pylist()
    return found


def write_runs(path: Path | str, runs: Iterable[tuple[RunSpec, RunResult]]) -> int:
    """Stream the rows of runs into a Parquet results table, atomically; returns how many were written."""
    return _write(path, _tables(runs))


def write_results(path: Path | str, table_rows: Iterable[dict[str, Any]]) -> int:
    """Stream rows into a Parquet results table, atomically; returns how many were written."""
    left = iter(table_rows)
    batches = iter(lambda: list(islice(left, BATCH_ROWS)), [])
    return _write(path, (pa.Table.from_pylist(batch, RESULTS_SCHEMA) for batch in batches))


def _write(path: Path | str, tables: Iterable[pa.Table]) -> int:
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, RESULTS_SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
            count += len(table)
    return count


def _tables(runs: Iterable[tuple[RunSpec, RunResult]]) -> Iterator[pa.Table]:
    """The rows of runs in tables of about `BATCH_ROWS`."""
    batch = _Columns()
    for spec, result in runs:
        batch.add(spec, result)
        if batch.rows >= BATCH_ROWS:
            yield batch.table()
            batch = _Columns()
    yield batch.table()


class _Columns:
    """Rows of several runs by column; Python handles what the rows of a run have in common once per run."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in RESULTS_SCHEMA.names}
        self._counts: list[int] = []

    @property
    def rows(self) -> int:
        return len(self._columns["value"])

    def add(self, spec: RunSpec, result: RunResult) -> None:
        """Add the rows of a run."""
        before = self.rows
        common = {
            "run": result.run,
            "study": spec.study,
            "domain": result.domain,
            "dataset": spec.dataset,
            "architecture": spec.variant or spec.architecture,
            "treatment": spec.treatment,
            "size": spec.size,
            "params": result.params,
            "params_body": result.params_body,
            "data": spec.data,
            "samples_seen": result.samples_seen,
            "flops": result.flops,
            "seed": spec.seed,
            "lr": result.learning_rate,
            "status": result.status,
            "reason": result.reason,
            "seconds": result.seconds,
            "peak_memory": result.peak_memory,
            "device": result.device,
            "shared": result.shared,
        }
        for name, value in common.items():
            self._columns[name].append(value)
        if result.status != "ok":
            for name in OWN_COLUMNS:
                self._columns[name].append(None)
        for split, outcome in result.splits.items():
            values = outcome.metrics.values()
            own: tuple[Iterable[Any], ...] = (
                [split] * len(values),
                [outcome.severity] * len(values),
                outcome.metrics,
                [metric.value for metric in values],
                [metric.se for metric in values],
                [metric.se_groups for metric in values],
                [metric.n for metric in values],
            )
            for name, column in zip(OWN_COLUMNS, own, strict=True):
                self._columns[name].extend(column)
        self._counts.append(self.rows - before)

    def table(self) -> pa.Table:
        """All rows added so far."""
        of_run = pa.array(np.repeat(np.arange(len(self._counts)), self._counts))
        arrays = [pa.array(self._columns[field.name], field.type) for field in RESULTS_SCHEMA]
        whole = [name in OWN_COLUMNS for name in RESULTS_SCHEMA.names]
        return pa.table([a if own else a.take(of_run) for a, own in zip(arrays, whole, strict=True)], RESULTS_SCHEMA)


def read_results(path: Path | str) -> pa.Table:
    """Read a results table; a file that is not one is a `UserError` that names what it lacks.

    A table of an older version gets the columns it was written without, empty.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise UserError(f"no results table at {path}; write one with 'scisci sweep collect'") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file; write one with 'scisci sweep collect'") from error
    missing = [name for name in RESULTS_SCHEMA.names if name not in table.column_names]
    if lacking := [name for name in missing if name not in ADDED]:
        raise UserError(f"{path} is not a results table: it lacks the columns {', '.join(lacking)}")
    for name in missing:
        at = RESULTS_SCHEMA.get_field_index(name)
        table = table.add_column(at, name, pa.nulls(len(table), RESULTS_SCHEMA.field(name).type))
    return table
