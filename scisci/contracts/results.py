"""The results table: one row per run, split and metric; everything after the sweep reads only this."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.contracts.run import RunResult, RunSpec

TABLE_VERSION = "2"  # 2 added se_groups

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
    ],
    metadata={"scisci_table_version": TABLE_VERSION},
)


def rows(spec: RunSpec, result: RunResult) -> Iterable[dict[str, Any]]:
    """The table rows of one run. A run that did not end well is one row without split and metric."""
    run = {
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
    }
    if result.status != "ok":
        yield run
    for split, outcome in result.splits.items():
        for name, metric in outcome.metrics.items():
            yield run | {
                "split": split,
                "severity": outcome.severity,
                "metric": name,
                "value": metric.value,
                "se": metric.se,
                "se_groups": metric.se_groups,
                "n": metric.n,
            }


def write_results(path: Path | str, table_rows: Iterable[dict[str, Any]], batch: int = 65_536) -> int:
    """Stream rows into a Parquet results table, atomically; returns how many were written."""
    count = 0
    pending: list[dict[str, Any]] = []
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, RESULTS_SCHEMA) as writer:
        for row in table_rows:
            pending.append(row)
            count += 1
            if len(pending) == batch:
                writer.write_table(pa.Table.from_pylist(pending, RESULTS_SCHEMA))
                pending.clear()
        writer.write_table(pa.Table.from_pylist(pending, RESULTS_SCHEMA))
    return count


def read_results(path: Path | str) -> pa.Table:
    """Read a results table; a file that is not one is a `UserError` that names what it lacks.

    A table of version 1 gets the column it was written without, empty.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise UserError(f"no results table at {path}; write one with 'scisci sweep collect'") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file; write one with 'scisci sweep collect'") from error
    if "se_groups" not in table.column_names and "se" in table.column_names:
        empty = pa.nulls(len(table), pa.float64())
        table = table.add_column(table.column_names.index("se") + 1, "se_groups", empty)
    missing = [name for name in RESULTS_SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(f"{path} is not a results table: it lacks the columns {', '.join(missing)}")
    return table
