from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.report.wording import (
    counted,
    ends_in_words,
    formula,
    linear_ticks,
    listed,
    log_ticks,
    merged,
    series_name,
    sharing,
    short,
    significant,
    unbroken,
    unsigned_zeros,
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


@given(st.floats(1e-6, 1e6), st.floats(1.05, 1e6))
def test_even_a_narrow_range_has_ticks_to_read_by(low: float, ratio: float) -> None:
    assert len(log_ticks(low, low * ratio)) >= 3


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_linear_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    ticks = linear_ticks(low, low + width)
    assert 3 <= len(ticks) <= 8
    assert low - 1e-9 * width <= ticks[0] < ticks[-1] <= low + width * (1 + 1e-9)
    steps = {round((b - a) / (ticks[1] - ticks[0]), 3) for a, b in pairwise(ticks)}
    assert steps == {1.0}
    assert f"{ticks[1] - ticks[0]:.3e}"[0] in "125"


@given(st.lists(st.integers(2, 999), min_size=1))
def test_texts_that_differ_in_a_number_are_one_with_its_range(slices: list[int]) -> None:
    low, high = min(slices), max(slices)
    found = merged([*(f"over {n} of 05 slices" for n in slices), "over all"])
    assert found == [f"over {low} to {high} of 05 slices" if low < high else f"over {low} of 05 slices", "over all"]


@pytest.mark.parametrize(
    ("text", "unsigned"),
    [
        ("-0.000 [-0.032, -0.000]", "0.000 [-0.032, 0.000]"),
        ("-0.0 (weak)", "0.0 (weak)"),
        ("-0.01 [-0.10, 0.00]", "-0.01 [-0.10, 0.00]"),
        ("not identified", "not identified"),
    ],
)
def test_what_is_rounded_to_zero_has_no_sign(text: str, unsigned: str) -> None:
    assert unsigned_zeros(text) == unsigned


def test_small_words() -> None:
    assert formula(r"L = E + A N^{-\alpha}") == "L = E + A N^(−α)"
    assert listed([]) == ""
    assert (counted(1, "run"), counted(2048, "run")) == ("1 run", "2,048 runs")
    assert ends_in_words({"ok": 1}) == "it finished"
    assert ends_in_words({"ok": 3}) == "all of them finished"
    assert ends_in_words({"out_of_memory": 1, "ok": 3}) == "3 finished and 1 out of memory"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert series_name("mpnn", "none") == series_name("mpnn", None) == "mpnn"
    assert series_name("mpnn", "augmentation") == "mpnn + augmentation"
    assert unbroken("a, 0.1 [0.0, 0.2], 3 ± 1") == "a, 0.1 [0.0,\u00a00.2], 3\u00a0±\u00a01"


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        ([False, False], ""),
        ([], ""),
        ([True, False], "other processes used the device during 1 of 2 finished runs"),
        ([None], "other processes may have used the device during 1 of 1 finished run"),
        (
            [True, None, None, False],
            "other processes used the device during 1 and may have during 2 of 4 finished runs",
        ),
    ],
)
def test_other_processes_on_the_device_are_counted(shared: list[bool | None], words: str) -> None:
    assert sharing(shared) == words
