"""The results table: what of a run's record is in it, and what becomes of tables of older versions."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts import results
from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results, rows, write_results, write_runs
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
    result = RunResult(run=spec.run, status="ok", domain="atoms", device="cpu", shared=True, splits=splits)
    write_results(tmp_path / "results.parquet", rows(spec, result))
    return tmp_path / "results.parquet"


def test_both_standard_errors_are_in_the_table(path):
    table = read_results(path)
    found = {row["metric"]: (row["se"], row["se_groups"]) for row in table.to_pylist()}
    assert found == {"force_mae": (0.1, 0.4), "energy_mae": (0.2, None)}
    assert table["shared"].to_pylist() == [True, True]
    assert table.schema.metadata[b"scisci_table_version"] == b"3"


@pytest.mark.parametrize(("version", "without"), [("1", ["se_groups", "shared"]), ("2", ["shared"])])
def test_a_table_of_an_older_version_gets_empty_columns_in_their_places(path, version, without):
    new = pq.read_table(path)
    pq.write_table(new.drop_columns(without).replace_schema_metadata({"scisci_table_version": version}), path)
    table = read_results(path)
    assert table.column_names == new.column_names
    assert all(table[name].to_pylist() == [None, None] for name in without)
    assert table["se"].to_pylist() == [0.1, 0.2]
    # Tables of all versions can be put together.
    assert len(pa.concat_tables([table, new])) == 4


def test_what_is_no_results_table_is_refused(path):
    pq.write_table(pq.read_table(path).drop_columns(["se", "seed"]), path)
    with pytest.raises(UserError, match="is not a results table: it lacks the columns seed, se"):
        read_results(path)


NAMES = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
METRICS = st.builds(
    MetricValue,
    value=NUMBERS,
    se=st.none() | NUMBERS,
    se_groups=st.none() | NUMBERS,
    n=st.integers(0, 2**40),
)
SPLITS = st.builds(SplitResult, severity=st.none() | NUMBERS, metrics=st.dictionaries(NAMES, METRICS))
RESULTS = st.builds(
    RunResult,
    run=NAMES,
    status=st.sampled_from(["ok", "diverged", "failed"]),
    reason=st.none() | st.just("why"),
    domain=st.just("atoms"),
    params=st.none() | st.integers(0, 2**40),
    flops_per_sample=st.none() | NUMBERS,
    device=NAMES,
    splits=st.dictionaries(NAMES, SPLITS, max_size=3),
)


def plain_rows(spec, result):
    """What a run's rows are, one after the other, with what is absent left out."""
    run = {
        "run": result.run,
        "study": spec.study,
        "domain": result.domain,
        "dataset": spec.dataset,
        "architecture": spec.architecture,
        "treatment": spec.treatment,
        "size": spec.size,
        "params": result.params,
        "data": spec.data,
        "samples_seen": result.samples_seen,
        "flops": None if result.flops_per_sample is None else result.flops_per_sample * result.samples_seen,
        "seed": spec.seed,
        "status": result.status,
        "reason": result.reason,
        "seconds": result.seconds,
        "device": result.device,
    }
    if result.status != "ok":
        yield run
    for split, outcome in result.splits.items():
        for name, metric in outcome.metrics.items():
            yield run | {"split": split, "severity": outcome.severity, "metric": name} | metric.model_dump()


@settings(max_examples=40, deadline=None)
@given(found=st.lists(RESULTS, max_size=8), batch=st.integers(1, 20))
def test_runs_are_written_row_by_row_whatever_the_batches(tmp_path_factory, found, batch):
    specs = [spec for _, spec in plan(seeds=[0, 1]).specs()]
    runs = list(zip(specs, found, strict=False))
    expected = [row for spec, result in runs for row in plain_rows(spec, result)]
    path = tmp_path_factory.mktemp("table") / "results.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "BATCH_ROWS", batch)
        assert write_runs(path, iter(runs)) == len(expected)
        assert pq.ParquetFile(path).num_row_groups >= len(expected) / (batch + 12)
    written = read_results(path).to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in written] == [
        {name: value for name, value in row.items() if value is not None} for row in expected
    ]
    write_results(path, (row for spec, result in runs for row in rows(spec, result)))
    assert read_results(path).to_pylist() == written
