"""The line that a board's entries share: how error out of distribution follows error in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.leaderboard.board import Board

LEAST_ENTRIES = 8
WIDEST_SLOPE = 0.5  # half-width of the slope's interval beyond which no line is drawn
BAND_POINTS = 33


@dataclass(frozen=True)
class Line:
    """ln y = intercept + slope ln x by least squares, with the slope's 95 % interval; `band` are (x, y, low, high)."""

    split: str
    slope: float
    low: float
    high: float
    r2: float
    entries: int
    band: tuple[tuple[float, float, float, float], ...]


def shared_line(board: Board, split: str) -> Line | str:
    """The line of all entries with both errors on log axes, or in words why there is none.

    The 95 % band is that of the mean (Student's t); the scatter of errors in x is not corrected for.
    """
    pairs = [(e.scores[board.splits[0]].error.value, e.scores[split].error.value) for e in _both(board, split)]
    if len(pairs) < LEAST_ENTRIES:
        return f"no line for {len(pairs)} entries, fewer than {LEAST_ENTRIES}"
    x, y = np.log(np.array(pairs)).T
    spread = float(((x - x.mean()) ** 2).sum())
    if spread == 0:
        return "no line for entries of one ID error"
    fit = stats.linregress(x, y)
    t = float(stats.t.ppf(0.975, len(x) - 2))
    half = t * float(fit.stderr)
    if half > WIDEST_SLOPE:
        return f"no line: its slope, {fit.slope:.2f} ± {half:.2f}, is not determined"
    at = np.linspace(x.min(), x.max(), BAND_POINTS)
    middle = fit.intercept + fit.slope * at
    residual = math.sqrt(float(((y - fit.intercept - fit.slope * x) ** 2).sum()) / (len(x) - 2))
    width = t * residual * np.sqrt(1 / len(x) + (at - x.mean()) ** 2 / spread)
    band = np.exp(np.stack([at, middle, middle - width, middle + width], axis=1))
    rows = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in band)
    slope = float(fit.slope)
    return Line(split, slope, slope - half, slope + half, float(fit.rvalue) ** 2, len(x), rows)


def _both(board: Board, split: str) -> list:
    """Entries with a positive error on the split and on the in-distribution one."""
    sides = (board.splits[0], split)
    return [e for e in board.entries if all(s in e.scores and e.scores[s].error.value > 0 for s in sides)]
