"""How a leaderboard grows with its submissions: making its boards from scores in memory and from files.

Run: python -m benchmarks leaderboard
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks._synthetic_board import synthetic
from scisci.leaderboard.ranks import boards
from scisci.leaderboard.scores import read_scores, write_scores

COUNTS = (100, 300, 1000)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, and what it returns."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(count: int) -> tuple[int, list[float]]:
    """How many entries the boards of `count` submissions have, and CPU seconds of every step."""
    scored = list(synthetic(count))
    with tempfile.TemporaryDirectory() as folder:
        write, _ = timed(lambda: [write_scores(folder, one) for one in scored])
        read, again = timed(lambda: list(read_scores(folder)))
    rank, found = timed(lambda: boards(again, reference="nequip"))
    return sum(len(board.entries) for board in found), [write, read, rank]


def main() -> None:
    """Print CPU seconds of every step, and the power of the number of submissions with which their sum grows."""
    print("CPU seconds; every submission has 16 runs on two data sets, of 5 and 6 splits and 7 and 4 metrics")
    names = " ".join(f"{name:>7}" for name in ("write", "read", "rank", "sum"))
    print(f"{'submissions':>11} {'entries':>8} {names} {'power':>6}")
    before: tuple[int, float] | None = None
    for count in COUNTS:
        entries, seconds = measure(count)
        total = sum(seconds)
        power = math.log(total / before[1]) / math.log(count / before[0]) if before else math.nan
        before = count, total
        print(f"{count:11d} {entries:8d} {' '.join(f'{s:7.2f}' for s in [*seconds, total])} {power:6.2f}", flush=True)


if __name__ == "__main__":
    main()
