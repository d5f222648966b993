from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.report.wording import (
    formula,
    listed,
    log_ticks,
    series_name,
    short,
    significant,
    unbroken,
    with_error,
)

SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def read_back(text: str) -> float:
    """The number that a reader takes from "1,234", "0.0123" or "1.2×10⁻⁷"."""
    mantissa, _, power = text.replace(",", "").partition("×10")
    return float(mantissa) * 10.0 ** int(power.translate(SUPERSCRIPT) or 0)


@given(st.floats(1e-30, 1e30), st.integers(1, 6))
def test_significant_digits_are_right_to_half_a_unit(value: float, digits: int) -> None:
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    assert abs(read_back(significant(value, digits)) - value) <= 0.5000001 * unit


@given(st.floats(1e-3, 1e6), st.floats(1e-4, 0.5))
def test_value_and_half_width_are_rounded_alike(value: float, relative: float) -> None:
    shown, half = with_error(value, value * relative).split(" ± ")
    true_half = 1.959963984540054 * value * relative
    assert read_back(half) == pytest.approx(true_half, rel=0.051)
    assert abs(read_back(shown) - value) <= 0.06 * true_half + 5e-4 * value


def test_an_interval_that_is_not_known_is_not_written() -> None:
    assert with_error(12.3456, None) == with_error(12.3456, float("nan")) == "12.3"


@pytest.mark.parametrize(
    ("count", "text"),
    [(950, "950"), (16_384, "16.4k"), (999_950, "1M"), (1_050_000, "1.05M"), (2.5e12, "2.5T"), (None, "–")],
)
def test_counts_are_short(count: float | None, text: str) -> None:
    assert short(count) == text


@given(st.floats(1e-12, 1e12), st.floats(1.6, 1e14))
def test_ticks_are_few_and_inside(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert len(ticks) <= 8
    assert all(low * 0.998 <= tick <= low * ratio * 1.002 for tick in ticks)
    assert ticks == sorted(ticks)


@given(st.floats(1e-6, 1e6), st.floats(3.2, 1e6))
def test_a_range_of_half_a_decade_has_a_tick(low: float, ratio: float) -> None:
    assert log_ticks(low, low * ratio)


def test_small_words() -> None:
    assert formula(r"L = E + A N^{-\alpha}") == "L = E + A N^(−α)"
    assert listed([]) == ""
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert series_name("mpnn", "none") == series_name("mpnn", None) == "mpnn"
    assert series_name("mpnn", "augmentation") == "mpnn + augmentation"
    assert unbroken("a, 0.1 [0.0, 0.2], 3 ± 1") == "a, 0.1 [0.0,\u00a00.2], 3\u00a0±\u00a01"
