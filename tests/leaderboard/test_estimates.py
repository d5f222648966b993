from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scisci.leaderboard.estimates import Errors, ranks

INTERVALS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3)), min_size=1, max_size=30)


def errors(*rows: tuple[str, str, bool, Mapping[str, tuple[float, float]]]) -> Errors:
    """From (slug, cell, chosen, split → (value, standard error)), a run each."""
    table = [
        {"slug": slug, "cell": cell, "chosen": chosen, "run": f"{i}", "split": split, "value": value, "error": error}
        for i, (slug, cell, chosen, of_splits) in enumerate(rows)
        for split, (value, error) in of_splits.items()
    ]
    frame = pd.DataFrame(table)
    return Errors.of(frame, sorted(set(frame.slug)), list(dict.fromkeys(frame.split)))


def row(frame: pd.DataFrame, slug: str = "a") -> list[float]:
    return frame.loc[slug, ["value", "low", "high"]].tolist()


def test_one_run_has_the_interval_of_its_samples() -> None:
    one = errors(("a", "x", True, {"test": (10.0, 0.5)}))
    assert row(one.on("test")) == pytest.approx([10.0, *stats.norm.interval(0.95, 10.0, 0.5)])


def test_one_run_without_a_standard_error_has_no_interval() -> None:
    assert row(errors(("a", "x", True, {"test": (10.0, np.nan)})).on("test")) == pytest.approx(
        [10.0, np.nan, np.nan], nan_ok=True
    )


def test_an_interval_ends_at_zero() -> None:
    assert row(errors(("a", "x", True, {"test": (1.0, 2.0)})).on("test"))[1] == 0.0


def test_seeds_alone_give_the_interval_of_a_mean() -> None:
    values = 10.0 * np.exp([0.02, -0.01, 0.03, -0.02])
    three = errors(*(("a", "x", True, {"test": (value, 0.0)}) for value in values))
    low, high = stats.t.interval(0.95, 3, values.mean(), values.mean() * np.log(values).std(ddof=1) / 2)
    assert row(three.on("test")) == pytest.approx([values.mean(), low, high])


def test_more_seeds_do_not_shrink_the_part_of_the_samples() -> None:
    many = errors(*(("a", "x", True, {"test": (10.0, 0.5)}) for _ in range(50)))
    assert row(many.on("test")) == pytest.approx([10.0, *stats.norm.interval(0.95, 10.0, 0.5)])


def test_the_spread_over_seeds_is_pooled_over_configurations() -> None:
    """Two cells of two seeds each, and the chosen one of a single seed: the pooled variance has two degrees."""
    found = errors(
        ("a", "x", False, {"test": (10.0, 0.0)}),
        ("a", "x", False, {"test": (11.0, 0.0)}),
        ("a", "y", False, {"test": (5.0, 0.0)}),
        ("a", "y", False, {"test": (5.2, 0.0)}),
        ("a", "z", True, {"test": (2.0, 0.0)}),
        ("b", "z", True, {"test": (2.0, 0.1)}),
    )
    spread = np.sqrt((np.log(1.1) ** 2 / 2 + np.log(1.04) ** 2 / 2) / 2)
    assert row(found.on("test")) == pytest.approx([2.0, *stats.t.interval(0.95, 2, 2.0, 2.0 * spread)])
    assert row(found.on("test"), "b") == pytest.approx([2.0, *stats.norm.interval(0.95, 2.0, 0.1)])


def test_a_ratio_cancels_what_seeds_share() -> None:
    """Errors of the seeds differ by up to 2 x, but on both splits alike: what is left is the samples' part."""
    factors = (1.0, 2.0, 0.7)
    three = errors(*(("a", "x", True, {"test": (10 * f, f), "ood": (30 * f, 3 * f)}) for f in factors))
    half = stats.norm.ppf(0.975) * np.hypot(0.1, 0.1)
    assert row(three.product({"ood": 1, "test": -1})) == pytest.approx([3.0, 3 * np.exp(-half), 3 * np.exp(half)])


def test_a_geometric_mean_of_independent_splits() -> None:
    one = errors(("a", "x", True, {"test": (1.0, 0.02), "b": (8.0, 0.4), "c": (27.0, 2.7)}))
    half = stats.norm.ppf(0.975) * np.linalg.norm([0.02, 0.05, 0.1]) / 3
    third = dict.fromkeys(("test", "b", "c"), 1 / 3)
    assert row(one.product(third)) == pytest.approx([6.0, 6 * np.exp(-half), 6 * np.exp(half)])


def test_a_split_that_is_missing_leaves_no_product() -> None:
    found = errors(("a", "x", True, {"test": (1.0, 0.1), "ood": (2.0, 0.1)}), ("b", "x", True, {"test": (1.0, 0.1)}))
    product = found.product({"ood": 1, "test": -1})
    assert row(product)[0] == pytest.approx(2.0)
    assert np.isnan(row(product, "b")).all()


def test_a_perfect_model_has_a_product_of_zero() -> None:
    perfect = errors(("a", "x", True, {"test": (0.0, 0.0), "ood": (2.0, 0.1)}))
    assert row(perfect.product({"ood": 0.5, "test": 0.5}))[0] == 0.0
    assert not np.isfinite(row(perfect.product({"ood": 1, "test": -1}))[0])
    assert row(perfect.on("test")) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("of_samples", [0.0, 0.05, 0.2])
def test_intervals_cover_the_truth(of_samples: float) -> None:
    """2,000 models with three seeds in each of two cells: of 95 % intervals, 93 to 97 % hold the true error."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(2000):
        samples = of_samples * rng.normal(size=2)
        for cell, chosen in (("x", True), ("y", False)):
            for seed in range(3):
                logs = samples + 0.1 * rng.normal(size=2)
                rows += [
                    {"slug": f"{i}", "cell": cell, "chosen": chosen, "run": f"{i}{cell}{seed}"}
                    | {"split": split, "value": np.exp(log), "error": of_samples * np.exp(log)}
                    for split, log in zip(("test", "ood"), logs, strict=True)
                ]
    frame = pd.DataFrame(rows)
    found = Errors.of(frame, sorted(set(frame.slug)), ["test", "ood"])
    for each in (found.on("test"), found.product({"ood": 1, "test": -1}), found.product({"ood": 0.5, "test": 0.5})):
        assert 0.93 < float(((each.low < 1) & (each.high > 1)).mean()) < 0.97


@given(INTERVALS)
def test_a_rank_counts_the_intervals_wholly_below(intervals: list[tuple[float, float]]) -> None:
    low, high = np.array([[center - half, center + half] for center, half in intervals]).T
    expected = [1 + sum(high[j] < low[i] for j in range(len(low))) for i in range(len(low))]
    assert ranks(low, high).tolist() == expected


@given(INTERVALS, st.randoms())
def test_the_order_of_entries_changes_no_rank(intervals: list[tuple[float, float]], random: Any) -> None:
    low, high = np.array([[center - half, center + half] for center, half in intervals]).T
    order = list(range(len(low)))
    random.shuffle(order)
    assert ranks(low[order], high[order]).tolist() == ranks(low, high)[order].tolist()
