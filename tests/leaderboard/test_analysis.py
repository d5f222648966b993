"""Fits of tables whose law is known, against scipy's linear regression of the logarithms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from scisci.leaderboard.analysis import analyse

from . import scores

SIZES, DATA = ("1000", "10000", "100000"), (64, 256, 1024)
SPLITS = {"val": 0.0, "test": 0.0, "ood_hot": 0.1, "ood_big": 0.15}


def law(params: float, data: float, shallower: float, rng: np.random.Generator, noise: float) -> float:
    return float(300 * params ** -(0.3 - shallower) * data**-0.2 * np.exp(noise * rng.normal()))


def table(slug: str = "mpnn", noise: float = 0.02, seeds: int = 2, **more: Any) -> pa.Table:
    """All sizes and amounts of data; the exponents along parameters are 0.3 in distribution, 0.2 and 0.15 out of it."""
    rng = np.random.default_rng(1)
    errors = {
        (size, data, seed): {split: law(float(size), data, change, rng, noise) for split, change in SPLITS.items()}
        for size in SIZES
        for data in DATA
        for seed in range(seeds)
    }
    return scores.results(slug, errors, **more)


def records(of: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    return [one for one in analyse(of) if all(one[name] == value for name, value in wanted.items())]


def logs(of: pa.Table, axis: str, split: str, **fixed: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in of.to_pylist() if row["split"] == split and all(row[k] == v for k, v in fixed.items())]
    return np.log([row[axis] for row in rows]), np.log([row["value"] for row in rows])


@pytest.mark.parametrize("split", ["test", "ood_hot", "ood_big"])
@pytest.mark.parametrize(("axis", "fixed"), [("params", {"data": 1024}), ("data", {"size": "100000"})])
def test_exponents_are_those_of_a_regression_of_logarithms(axis: str, fixed: dict[str, Any], split: str) -> None:
    found = table()
    (record,) = records(found, axis=axis, split=split)
    x, y = logs(found, axis, split, **fixed)
    line = stats.linregress(x, y)
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    assert record["verdict"] == "identified"
    expected = {"value": -line.slope, "low": -line.slope - half, "high": -line.slope + half}
    assert record["exponent"] == pytest.approx(expected, rel=1e-4)
    assert record["line"]["alpha"] == pytest.approx(-line.slope)
    assert record["line"]["mean_log_x"] == pytest.approx(x.mean())
    assert record["line"]["mean_log_y"] == pytest.approx(y.mean())
    assert record["line"]["variance"] == pytest.approx(
        np.sum((y - line.intercept - line.slope * x) ** 2) / (len(x) - 2)
    )
    true = 0.2 if axis == "data" else 0.3 - SPLITS[split]
    assert record["exponent"]["low"] < true < record["exponent"]["high"]


def test_the_largest_scale_is_predicted_by_the_others() -> None:
    found = table()
    (record,) = records(found, axis="params", split="test")
    x, y = logs(found, "params", "test", data=1024)
    small = x < x.max()
    line = stats.linregress(x[small], y[small])
    missed = line.intercept + line.slope * x[~small] - y[~small]
    assert record["held_out"] == pytest.approx(np.sqrt(np.mean(missed**2)))


def test_what_is_held_fixed_is_said() -> None:
    fixed = {record["axis"]: record["fixed"] for record in records(table(), split="test")}
    assert fixed == {
        "params": "1,024 training samples",
        "data": "size 100000",
        "flops": "compute frontier, chosen on val",
    }


def test_no_frontier_is_chosen_out_of_distribution() -> None:
    errors = {(size, 64, 0): {"ood_hot": 5.0 / i} for i, size in enumerate(SIZES, 1)}
    (record,) = records(scores.results("mpnn", errors), axis="flops")
    assert (record["fixed"], record["exponent"]) == ("compute frontier", None)
    assert "never chosen out of distribution" in record["reason"]


def test_the_frontier_leaves_out_what_cheaper_runs_beat() -> None:
    """A run with ten times the compute and a far larger error is no point of the frontier."""
    errors = {(size, 64, 0): {"val": v, "test": v} for size, v in zip(SIZES, (8.0, 4.0, 2.0), strict=True)}
    worse = {("1000000", 64, 0): {"val": 7.0, "test": 7.0}}
    (record,) = records(scores.results("mpnn", errors | worse), axis="flops", split="test")
    assert record["line"]["n"] == 3
    assert record["line"]["x_max"] == pytest.approx(60.0 * 100_000 * 64)
    assert record["exponent"]["value"] == pytest.approx(np.log10(2))


def test_two_sizes_identify_nothing() -> None:
    errors = {(size, 64, seed): {"test": 5.0 + seed} for size in ("1000", "10000") for seed in (0, 1)}
    for record in analyse(scores.results("mpnn", errors)):
        assert (record["verdict"], record["exponent"], record["line"]) == ("not identified", None, None)
        assert record["reason"]


def test_three_bare_runs_say_that_the_scatter_is_unknown() -> None:
    errors = {(size, 64, 0): {"test": 5.0 / i} for i, size in enumerate(SIZES, 1)}
    (record,) = records(scores.results("mpnn", errors), axis="params")
    assert record["verdict"] in ("weak", "identified")
    assert record["exponent"]["low"] < record["exponent"]["value"] < record["exponent"]["high"]


def test_an_error_of_zero_is_a_reason_and_no_crash() -> None:
    errors = {(size, 64, 0): {"val": 1.0, "test": 0.0} for size in SIZES}
    for record in analyse(scores.results("mpnn", errors)):
        assert record["verdict"] == "not identified"
    (record,) = records(scores.results("mpnn", errors), axis="params")
    assert "zero or negative in 3 of 3 rows" in record["reason"]


def test_runs_whose_compute_nobody_measured_have_no_frontier() -> None:
    (record,) = records(table(flops=None), axis="flops", split="test")
    assert record["verdict"] == "not identified"
    assert "'flops' is missing" in record["reason"]


def test_failed_runs_are_left_out() -> None:
    errors = {(size, 64, 0): {"test": 5.0 / i} for i, size in enumerate(SIZES, 1)}
    with_failure = scores.results("mpnn", errors | {("1000", 64, 1): {}})
    assert analyse(with_failure) == analyse(scores.results("mpnn", errors))


def test_every_data_set_treatment_and_ranked_error_has_its_own_fits() -> None:
    halos = {"dataset": "halos", "domain": "cloud"}
    many = pa.concat_tables(
        [
            table(),
            table(metric="energy_mae"),
            table(metric="omega_m_fvu", **halos),
            table(metric="sigma_8_fvu", **halos),
            table(metric="omega_m_fvu", treatment="augmentation", **halos),
        ]
    )
    assert {(record["dataset"], record["metric"], record["treatment"]) for record in analyse(many)} == {
        ("molecules", "force_mae", "none"),
        ("halos", "omega_m_fvu", "none"),
        ("halos", "omega_m_fvu", "augmentation"),
        ("halos", "sigma_8_fvu", "none"),
    }
    assert len(analyse(many)) == 4 * 3 * 3


def test_a_table_without_test_splits_has_no_fits() -> None:
    errors = {(size, 64, 0): {"val": 5.0 / i} for i, size in enumerate(SIZES, 1)}
    assert analyse(scores.results("mpnn", errors)) == []


def test_records_are_json_and_say_nothing_of_who_submitted() -> None:
    found = analyse(table())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert analyse(table("other")) == found
