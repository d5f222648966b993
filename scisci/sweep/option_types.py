"""What options of the commands on sweeps are read as; each refuses what it is not."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scisci.sweep.drive import Shard


def count(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole_from(1, text)


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole_from(0, text)


def _whole_from(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of {least} or more")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def span(text: str) -> float:
    """Seconds in a time span such as 1h30m."""
    from scisci.sweep.resources import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def shard(text: str) -> Shard:
    """Part I of N, as I/N."""
    from scisci.sweep.drive import Shard

    index, _, parts = text.partition("/")
    if not (index.isdecimal() and parts.isdecimal() and 1 <= int(index) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, e.g. 2/8")
    return Shard(int(index), int(parts))
