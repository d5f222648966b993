"""Frequencies of time series: one spelling for each, the season that goes with it, and steps of time from a start.

A frequency is spelled as pandas spells it now, such as `h`, `15min`, `D`, `W-MON`, `MS`. Months, quarters and years are
named by their first day, as a `Period` of GluonTS is, however a source stamps them: month ends too are `MS`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from scisci.contracts.errors import UserError, unknown_name

# Microseconds of the steps that always last as long.
FIXED = {"us": 1, "ms": 10**3, "s": 10**6, "min": 6 * 10**7, "h": 36 * 10**8, "D": 864 * 10**8, "W": 7 * 864 * 10**8}
MONTHS = {"MS": 1, "QS": 3, "YS": 12}
UNITS = (*FIXED, "B", *MONTHS)
# What pandas called them before version 2.2, and what it calls months by another of their days.
OLD = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us"} | {
    prefix + name + suffix: unit
    for unit, names in {"MS": "M", "QS": "Q", "YS": "AY"}.items()
    for name in names
    for prefix in ("", "B")
    for suffix in ("", "S", "E")
}
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# GluonTS's get_seasonality: days, weeks and years have none.
SEASONS = {"s": 3600, "min": 1440, "h": 24, "B": 5, "MS": 12, "QS": 4}
SPELLING = re.compile(r"(\d*\.?\d*)([A-Za-z]+)(?:-([A-Z]{3}))?")
DAY = FIXED["D"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spelling(freq: str) -> str:
    """The one spelling of a frequency in pandas' or its older names; `UserError` for one that is not known."""
    number, unit, anchor = _parsed(freq)
    return (str(number) if number > 1 else "") + unit + (f"-{anchor}" if anchor else "")


def season(freq: str) -> int:
    """Steps in the seasonal period of a frequency; 1 where it has none, or the step does not divide it."""
    number, unit, _ = _parsed(freq)
    steps, rest = divmod(SEASONS.get(unit, 1), number)
    return 1 if rest else steps


def same_step(freq: str, other: str) -> bool:
    """Whether two frequencies have the same step; weeks may begin on different days."""
    return _parsed(freq)[:2] == _parsed(other)[:2]


def period(freq: str) -> str:
    """The frequency as `pandas.Period` spells it, by the last day or month of a week, quarter or year."""
    number, unit, anchor = _parsed(freq)
    name = unit
    if unit == "W":
        name = f"W-{WEEKDAYS[WEEKDAYS.index(anchor) - 1]}"
    elif unit in MONTHS:
        last = MONTH_NAMES[MONTH_NAMES.index(anchor or "JAN") - 1]
        name = unit[0] if unit == "MS" else f"{unit[0]}-{last}"
    return (str(number) if number > 1 else "") + name


def anchored(start: int, freq: str) -> tuple[int, str]:
    """A start in seconds and its frequency such that the start is the first of its steps.

    Months, quarters and years begin on their first day; a week begins on the weekday of the start.
    """
    number, unit, anchor = _parsed(freq)
    if unit == "W":
        weekday = WEEKDAYS[(start // 86400 + 3) % 7]  # 1970-01-01 was a Thursday
        return start, f"{number if number > 1 else ''}W-{weekday}"
    if unit not in MONTHS:
        return start, spelling(freq)
    first = _periods(np.array([start * 10**6]), unit, anchor)[0] * MONTHS[unit] + _offset(anchor)
    # Quarters that begin in April are those that begin in January.
    month = MONTH_NAMES[_offset(anchor) % MONTHS[unit]]
    return int(_month(first)), spelling(f"{number}{unit}{'' if unit == 'MS' else f'-{month}'}")


def later(start: int, steps: int, freq: str) -> int:
    """The time, in seconds, so many steps after an anchored start."""
    number, unit, _ = _parsed(freq)
    if unit in FIXED:
        return start + steps * number * FIXED[unit] // 10**6
    days, rest = divmod(start, 86400)
    if unit == "B":
        day = np.busday_offset(np.datetime64(days, "D"), steps * number, roll="forward")
        return int(day.astype(np.int64)) * 86400 + rest
    month = np.datetime64(days, "D").astype("M8[M]").astype(np.int64)
    return int(_month(month + steps * number * MONTHS[unit]))


def positions(times: np.ndarray, freq: str) -> np.ndarray:
    """[T] the step, from the first on, that each of `times` (int64 microseconds) is; -1 where it is between steps."""
    number, unit, anchor = _parsed(freq)
    if unit in FIXED:
        steps, rest = np.divmod(times - times[0], number * FIXED[unit])
    elif unit == "B":
        days = (times // DAY).astype("M8[D]")
        steps, rest = np.divmod(np.busday_count(days[0], days), number)
        rest |= (~np.is_busday(days)) | (times % DAY != times[0] % DAY)
    else:
        whole = _periods(times, unit, anchor)
        steps, rest = np.divmod(whole - whole[0], number)
    return np.where(rest == 0, steps, -1)


def inferred(times: np.ndarray) -> str | None:
    """The frequency of regular, ascending `times` (int64 microseconds); `None` for others, and for fewer than three.

    Months are regular by the same day of each, or by one of the first or of the last three days, as trading days are.
    """
    if len(times) < 3:
        return None
    if (months := _regular(positions(times, "MS"))) and _same_days((times // DAY).astype("M8[D]")):
        unit = next(unit for unit in reversed(MONTHS) if months % MONTHS[unit] == 0)
        begin = MONTH_NAMES[(times[:1] // DAY).astype("M8[D]").astype("M8[M]").astype(np.int64)[0] % 12]
        return spelling(f"{months // MONTHS[unit]}{unit}" + ("" if unit == "MS" else f"-{begin}"))
    if apart := _regular(times - times[0]):
        unit = next(unit for unit in reversed(FIXED) if apart % FIXED[unit] == 0)
        return spelling(f"{apart // FIXED[unit]}{unit}")
    days = _regular(positions(times, "B"))
    return spelling(f"{days}B") if days else None


def _regular(places: np.ndarray) -> int:
    """The distance of neighbours, or 0 if it is not the same everywhere, or a place is between steps."""
    apart = np.diff(places)
    return int(apart[0]) if (apart == apart[0]).all() and (places >= 0).all() else 0


def _same_days(days: np.ndarray) -> bool:
    """Whether days are the same in each of their months, or among the first three, or the last three."""
    from_first = (days - days.astype("M8[M]").astype("M8[D]")).astype(np.int64)
    to_last = ((days.astype("M8[M]") + 1).astype("M8[D]") - days).astype(np.int64)
    return bool((from_first == from_first[0]).all() or (from_first < 3).all() or (to_last <= 3).all())


def moment(text: str, freq: str) -> int:
    """A start in seconds since 1970, UTC where it names no zone: a date or time of ISO 8601 or of a .tsf file, a year,
    a month, or a `Period` as pandas writes it; `ValueError` for others."""
    text = text.strip().partition("/")[0]  # a week is written as its first and last day
    if re.fullmatch(r"\d{4}Q[1-4]", text):
        text = str(pd.Period(text, freq=period(freq)).start_time.date())
    if re.fullmatch(r"\d{4}(-\d\d)?", text):
        text = f"{text}-01-01"[:10]
    text = re.sub(r"^(\d{4}-\d\d-\d\d)[ T](\d\d)-(\d\d)-(\d\d)", r"\1T\2:\3:\4", text)
    found = datetime.fromisoformat(text)
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH) // timedelta(seconds=1)


@lru_cache(maxsize=256)
def _parsed(freq: str) -> tuple[int, str, str]:
    """Number of units, unit, and where weeks begin, or quarters and years that do not in January."""
    match = SPELLING.fullmatch(freq.strip())
    if match is None:
        raise unknown_name("frequency", freq, UNITS)
    number, name, anchor = match[1], match[2], match[3] or ""
    unit = OLD.get(name, name)
    if unit not in UNITS:
        raise unknown_name("frequency", freq, UNITS)
    if "." in number and unit in FIXED:
        return _parsed(to_offset(f"{number}{unit}").freqstr)
    if not re.fullmatch(r"|0*[1-9]\d*", number):
        raise UserError(f"the frequency {freq} is not a whole number of steps; write it like 2h or 15min")
    if anchor not in ("", *(WEEKDAYS if unit == "W" else MONTH_NAMES if unit in ("QS", "YS") else ())):
        raise UserError(f"the frequency {freq} has no -{anchor}; write it like W-MON, QS-FEB or YS-JUL")
    return int(number or 1), unit, _begin(name, unit, anchor)


def _begin(name: str, unit: str, anchor: str) -> str:
    """The day or month with which weeks, quarters or years begin; empty for January."""
    if unit == "W" or not anchor:
        return anchor or ("SUN" if unit == "W" else "")
    month = (MONTH_NAMES.index(anchor) + (not name.endswith("S"))) % 12
    return MONTH_NAMES[month] if month else ""


def _offset(anchor: str) -> int:
    return MONTH_NAMES.index(anchor) if anchor else 0


def _periods(times: np.ndarray, unit: str, anchor: str) -> np.ndarray:
    """The number of each time's month, quarter or year."""
    months = (times // DAY).astype("M8[D]").astype("M8[M]").astype(np.int64)
    return (months - _offset(anchor)) // MONTHS[unit]


def _month(number: int) -> np.int64:
    """The first second of a month counted from January 1970."""
    return np.datetime64(int(number), "M").astype("M8[s]").astype(np.int64)
