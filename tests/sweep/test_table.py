"""The results table: what of a run's record is in it, and what becomes of tables of older versions."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results, rows, write_results
from scisci.contracts.run import MetricValue, RunResult, SplitResult

from .grid import plan


@pytest.fixture
def path(tmp_path):
    """A table of one run with two metrics, of which only one has an error over groups."""
    _, spec = next(plan().specs())
    metrics = {
        "force_mae": MetricValue(value=3.0, se=0.1, se_groups=0.4, n=64),
        "energy_mae": MetricValue(value=1.0, se=0.2, n=64),
    }
    splits = {"test": SplitResult(metrics=metrics)}
    result = RunResult(run=spec.run, status="ok", domain="atoms", device="cpu", splits=splits)
    write_results(tmp_path / "results.parquet", rows(spec, result))
    return tmp_path / "results.parquet"


def test_both_standard_errors_are_in_the_table(path):
    table = read_results(path)
    found = {row["metric"]: (row["se"], row["se_groups"]) for row in table.to_pylist()}
    assert found == {"force_mae": (0.1, 0.4), "energy_mae": (0.2, None)}
    assert table.schema.metadata[b"scisci_table_version"] == b"2"


def test_a_table_of_version_1_gets_an_empty_column(path):
    old = pq.read_table(path).drop_columns(["se_groups"])
    pq.write_table(old.replace_schema_metadata({"scisci_table_version": "1"}), path)
    table = read_results(path)
    names = table.column_names
    assert names[names.index("se") + 1] == "se_groups"
    assert table["se_groups"].to_pylist() == [None, None]
    assert table["se"].to_pylist() == [0.1, 0.2]


def test_what_is_no_results_table_is_refused(path):
    pq.write_table(pq.read_table(path).drop_columns(["se", "seed"]), path)
    with pytest.raises(UserError, match="is not a results table: it lacks the columns seed, se"):
        read_results(path)
