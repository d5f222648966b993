from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from gluonts.time_feature import get_seasonality
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.data.frequencies import anchored, inferred, later, moment, period, positions, same_step, season, spelling

CURRENT = ["h", "2h", "15min", "7min", "s", "4s", "ms", "D", "2D", "W-WED", "B", "MS", "2MS", "QS", "QS-FEB", "YS-JUL"]
ALL = [*CURRENT, "min", "30min", "us", "W-SUN", "W-MON", "QS-MAR", "YS", "3h", "5MS", "3B"]
frequencies = pytest.mark.parametrize("freq", ALL)
seconds = st.integers(int(pd.Timestamp("1680-01-01").timestamp()), int(pd.Timestamp("2200-01-01").timestamp()))


@pytest.mark.parametrize(
    ("old", "now"),
    [
        *[("H", "h"), ("1H", "h"), ("T", "min"), ("30T", "30min"), ("S", "s"), ("4S", "4s"), ("L", "ms"), ("U", "us")],
        *[("M", "MS"), ("ME", "MS"), ("BM", "MS"), ("3M", "3MS"), ("Q", "QS"), ("Q-DEC", "QS"), ("QE-DEC", "QS")],
        *[("QS-JAN", "QS"), ("Q-NOV", "QS-DEC"), ("QS-MAR", "QS-MAR"), ("BQE-OCT", "QS-NOV"), ("A", "YS")],
        *[("A-DEC", "YS"), ("AS-JAN", "YS"), ("Y", "YS"), ("YE-JUN", "YS-JUL"), ("W", "W-SUN"), ("0.5H", "30min")],
        *[("0.5min", "30s"), ("W-SUN", "W-SUN"), ("D", "D")],
    ],
)
def test_old_names_and_those_by_other_days_have_one_spelling(old: str, now: str) -> None:
    assert spelling(old) == now
    assert spelling(now) == now


@frequencies
@pytest.mark.filterwarnings("ignore:The 'name' property is deprecated")
def test_season_and_spelling_are_those_of_gluonts_and_pandas(freq: str) -> None:
    assert season(freq) == get_seasonality(freq)
    assert pd.tseries.frequencies.to_offset(spelling(freq)) == pd.tseries.frequencies.to_offset(freq)


@pytest.mark.parametrize(
    ("freq", "message"),
    [
        ("mins", "unknown frequency 'mins'; did you mean .*'min'"),
        ("", "unknown frequency"),
        ("WOM-3FRI", "unknown frequency"),
        ("0h", "0h is not a whole number"),
        ("1.5MS", "1.5MS is not a whole number"),
        ("W-DEC", "has no -DEC"),
        ("h-MON", "has no -MON"),
    ],
)
def test_unknown_frequency_is_an_error(freq: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spelling(freq)


@frequencies
@given(start=seconds)
def test_start_of_a_step_is_that_of_a_period(freq: str, start: int) -> None:
    begin, spelled = anchored(start, freq)
    if spelled.endswith("S") or "S-" in spelled:
        expected = pd.Period(pd.Timestamp(start, unit="s"), freq=period(freq)).start_time
        assert (begin, spelled) == (int(expected.timestamp()), freq)
    else:
        assert begin == start
    if "W-" in spelled:
        week = pd.Period(pd.Timestamp(begin, unit="s"), freq=period(spelled)).start_time
        assert week == pd.Timestamp(begin, unit="s").normalize()
    assert same_step(freq, spelled)


@frequencies
@given(start=seconds, steps=st.integers(0, 200))
def test_later_times_are_those_of_pandas(freq: str, start: int, steps: int) -> None:
    begin, spelled = anchored(start, freq)
    offset = pd.tseries.frequencies.to_offset(spelled)
    expected = pd.Timestamp(begin, unit="s")
    if freq in ("B", "3B"):
        expected = pd.offsets.BDay().rollforward(expected)
    expected = expected + steps * offset if steps else expected
    assert later(begin, steps, spelled) == expected.timestamp() // 1


@frequencies
@given(data=st.data())
def test_positions_and_frequency_of_times(freq: str, data: st.DataObject) -> None:
    start = pd.Timestamp(data.draw(seconds), unit="s").normalize()
    times = pd.date_range(start, periods=40, freq=freq)
    values = times.as_unit("us").asi8
    taken = np.sort(data.draw(st.lists(st.integers(0, 39), min_size=1, unique=True)))
    assert (positions(values[taken], freq) == taken - taken[0]).all()
    found = inferred(values)
    assert found is not None
    assert same_step(found, freq)
    assert inferred(np.delete(values, 20)) is None


@pytest.mark.parametrize("month", ["MS", "ME", "BME", "BMS"])
def test_months_are_the_same_by_any_of_their_days(month: str) -> None:
    times = pd.date_range("1999-05-01", periods=30, freq=month).as_unit("us").asi8
    assert inferred(times) == "MS"
    assert (positions(times, "MS") == np.arange(30)).all()


def test_times_between_steps_have_no_position() -> None:
    hours = pd.DatetimeIndex(["2020-01-03 00:00", "2020-01-03 01:00", "2020-01-03 01:30", "2020-01-05 00:00"])
    assert positions(hours.as_unit("us").asi8, "h").tolist() == [0, 1, -1, 48]
    assert positions(hours.as_unit("us").asi8, "B").tolist() == [0, -1, -1, -1]  # 2020-01-05 was a Sunday
    assert inferred(hours.as_unit("us").asi8) is None
    assert inferred(hours[:2].as_unit("us").asi8) is None
    weekend = pd.DatetimeIndex(["2020-01-04", "2020-01-06", "2020-01-07"])
    assert inferred(weekend.as_unit("us").asi8) is None


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.sampled_from(["h", "D", "W-SUN", "M", "Q-NOV", "Y"])
)
def test_moment_reads_what_a_period_writes(time: datetime, freq: str) -> None:
    written = pd.Period(time, freq=freq)
    assert moment(str(written), freq) == written.start_time.timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2010-07-01 00-30-00", "2010-07-01T00:30:00+00:00"),
        ("2010-07-01T00:30:00.75", "2010-07-01T00:30:00+00:00"),
        ("2010-07-01 00:30:00+02:00", "2010-06-30T22:30:00+00:00"),
        ("1750-01", "1750-01-01T00:00:00+00:00"),
    ],
)
def test_moment_of_other_formats(text: str, expected: str) -> None:
    assert moment(text, "h") == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize("text", ["yesterday", "2010-13-01", "1388534400", "2020Q5", ""])
def test_no_moment(text: str) -> None:
    with pytest.raises(ValueError):
        moment(text, "h")
