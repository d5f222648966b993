"""Small scored submissions with the errors that a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from scisci.contracts.results import RESULTS_SCHEMA
from scisci.leaderboard.scores import Scored
from scisci.leaderboard.submission import Submission

PARAMS = {"s": 1_000, "m": 10_000, "l": 100_000}
Cell = tuple[str, int, int]  # size, data, seed
Error = float | tuple[float, float]  # with its standard error


def results(
    slug: str,
    errors: Mapping[Cell, Mapping[str, Error]],
    dataset: str = "molecules",
    domain: str = "atoms",
    metric: str = "force_mae",
    severities: Mapping[str, float] | None = None,
    samples: int = 100,
    **columns: Any,
) -> pa.Table:
    """A results table: `errors` by run and split; a run without any failed. `columns` are the same in all rows."""
    rows = []
    for (size, data, seed), of_splits in errors.items():
        params = PARAMS.get(size) or int(size)
        run = {
            "run": f"{slug}/{dataset}-{metric}-{size}-{data}-{seed}",
            "study": "leaderboard",
            "domain": domain,
            "dataset": dataset,
            "architecture": slug,
            "treatment": "none",
            "size": size,
            "params": params,
            "params_body": params,
            "data": data,
            "samples_seen": 10 * data,
            "flops": 60.0 * params * data,
            "seed": seed,
            "status": "ok" if of_splits else "diverged",
            "seconds": 1.0,
            "device": "cpu",
        }
        if not of_splits:
            rows.append(run)
        for split, error in of_splits.items():
            value, se = error if isinstance(error, tuple) else (error, None)
            severity = (severities or {}).get(split)
            found = {"split": split, "severity": severity, "metric": metric, "value": value, "se": se, "n": samples}
            rows.append(run | found | columns)
    return pa.Table.from_pylist(rows, RESULTS_SCHEMA)


def submission(
    tables: Sequence[pa.Table], samples: int = 100, reported: Mapping[str, float] | None = None
) -> Submission:
    """The submission that results tables would be of."""
    runs: dict[str, dict[str, Any]] = {}
    for row in (row for table in tables for row in table.to_pylist()):
        copied = (
            "dataset",
            "size",
            "treatment",
            "params",
            "data",
            "samples_seen",
            "flops",
            "seed",
            "seconds",
            "device",
        )
        run = runs.setdefault(row["run"], {"splits": {}, **{name: row[name] for name in copied}})
        run |= {"run": row["run"].partition("/")[2], "fingerprint": "0" * 64, "status": row["status"]}
        if row["split"] is None:
            run["reason"] = "the loss is NaN"
        else:
            run["splits"][row["split"]] = samples
            run["reported"] = {"test": dict(reported)} if reported and "test" in run["splits"] else {}
    return Submission.model_validate(
        {
            "name": "A model",
            "family": "invariant",
            "symmetry": {"rotation": "exact"},
            "summary": "for a test",
            "authors": [{"name": "A. Author"}],
            "date": "2026-01-02",
            "licence": "MIT",
            "training_data": {"description": "train", "contamination": "none known", "statement": "none"},
            "tuning": {"trials": 1, "selected_on": "val, force_mae"},
            "hardware": {"description": "one core", "device_hours": 1.0},
            "runs": list(runs.values()),
        }
    )


def scored(
    slug: str,
    errors: Mapping[Cell, Mapping[str, Error]],
    *others: pa.Table,
    samples: int = 100,
    trivial: float = 100.0,
    reported: Mapping[str, float] | None = None,
    sealed: Mapping[Cell, Mapping[str, Error]] | None = None,
    **columns: Any,
) -> Scored:
    """A scored submission with the further tables `others`; `columns` go to `results`."""
    tables = [results(slug, errors, samples=samples, **columns), *others]
    whole = pa.concat_tables(tables)
    of_trivial: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in whole.to_pylist():
        if row["split"]:
            of_trivial.setdefault((row["dataset"], row["split"], samples), {})[row["metric"]] = trivial
    return Scored(
        slug=slug,
        submission=submission(tables, samples, reported),
        table=whole,
        digest="d" * 64,
        scoring_version=1,
        trivial=of_trivial,
        sealed_table=None if sealed is None else results(slug, sealed, samples=samples, **columns),
    )
