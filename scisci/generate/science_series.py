"""The data set `science-series`: real measurements, divided by time, by station, by source and by frequency.

Of every series that is seen in training, `test` is from its last 10 %, `val` from what lies before, and `train` is cut
into chunks from the rest; `EMBARGO` steps between them are in none. The held-out stations and frequencies are of the
period of `test` too, so that they differ from it in nothing but their shift.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import floor, log2
from pathlib import Path

import numpy as np
import pandas as pd

from scisci.contracts.errors import UserError
from scisci.data.samples import SeriesSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent
from scisci.generate.science_series_tables import Measured, read_all

SEED = 20260
CHUNK, SEGMENT = 1024, 2048
EMBARGO = 512
# A series has at least so many steps in `val` and `test`: a context of 512, and one or more horizons.
LEAST = {"val": 768, "test": 1024}
SHARE = {"val": 0.05, "test": 0.1}
SEGMENTS = {"val": 2, "test": 4}
MOST_CHUNKS = 128
"""of one source, so that none outweighs the others"""
OBSERVED = 0.5
"""the least share of values that a chunk or segment has"""
# Which seen series come at which other steps.
COARSER = {
    "household-power": (4, "h"),
    "la-haute-borne": (6, "h"),
    "beijing-air": (3, "3h"),
    "metro-traffic": (3, "3h"),
    "geomagnetic-ap": (8, "D"),
}

SHIFTS = {
    "train": "none: chunks of 1,024 steps in one permutation that takes a chunk of every source in turn",
    "val": "none: the same series, at least 512 steps after the last of their training chunks",
    "test": "none: the last 10 % of the same series, at least 512 steps after their validation segments",
    "ood_station": "station: held-out sites, rooms and meters of the seen sources, in the period of test",
    "ood_source": "source: measurements of other things, from other sources",
    "ood_frequency": "frequency: seen series in the period of test at other steps, graded by |log2| of their ratio",
}


@dataclass(frozen=True)
class Periods:
    """The half-open ranges of steps from which the splits of one series are taken."""

    train: range
    val: range
    test: range


def periods(steps: int) -> Periods:
    """Divide a series of so many steps in time."""
    test = steps - max(LEAST["test"], floor(SHARE["test"] * steps))
    last = test - EMBARGO
    val = last - max(LEAST["val"], floor(SHARE["val"] * steps))
    return Periods(range(max(0, val - EMBARGO)), range(val, last), range(test, steps))


def spread(span: range, length: int, most: int) -> list[range]:
    """At most so many windows of `length`, or one shorter window, evenly spread over a period without overlap."""
    length = min(length, len(span))
    count = min(most, len(span) // length)
    starts = np.linspace(span.start, span.stop - length, count).astype(int) if count > 1 else [span.stop - length]
    return [range(int(start), int(start) + length) for start in starts]


def rounded(values: np.ndarray, precision: tuple[float, ...]) -> np.ndarray:
    """[C, T] rounded to multiples of the largest power of two within the precision of each channel.

    The error is at most half of what is resolved, and floats that end in zeros compress well.
    """
    step = np.exp2(np.floor(np.log2(precision)))[:, None]
    return (np.round(values / step) * step).astype(np.float32)


def cut(series: Measured, window: range) -> SeriesSample:
    """The sample of one window of a series."""
    start = pd.date_range(series.start, periods=window.start + 1, freq=series.freq)[-1]
    target = rounded(series.values[:, window.start : window.stop], series.precision)
    return SeriesSample(target, int(start.timestamp()), series.freq)


def samples(series: Measured, span: range, length: int, most: int) -> list[SeriesSample]:
    """The windows of a period that are observed for the most part."""
    cuts = (cut(series, window) for window in spread(span, length, most))
    return [sample for sample in cuts if (~np.isnan(sample.target)).mean() >= OBSERVED]


def step(freq: str) -> pd.Timedelta:
    """The time from step to step of a frequency whose steps are equally long."""
    first, second = pd.date_range("2001-01-01", periods=2, freq=freq)
    return second - first


def slower(series: Measured, factor: int, freq: str) -> Measured:
    """The period of `test` of a series in steps that are `factor` times as long, which begin on the hour or day."""
    at = periods(series.values.shape[1]).test.start
    start = series.start + at * step(series.freq)
    at += int((start.ceil(freq) - start) / step(series.freq))
    return replace(series, start=start.ceil(freq), values=series.values[:, at:]).slower(factor, freq)


def faster(series: Measured, finer: Measured) -> Measured:
    """The period of `test` of a series at its finer steps."""
    test = periods(series.values.shape[1]).test
    factor = int(step(series.freq) / step(finer.freq))
    start = series.start + test.start * step(series.freq)
    return replace(finer, start=start, values=finer.values[:, factor * test.start : factor * test.stop])


@dataclass(frozen=True)
class Entry:
    """A sample and where it goes; `octaves` is the |log2| of its step over the one in training."""

    split: str
    series: Measured
    sample: SeriesSample
    octaves: float = 0.0


def chunks(series: Measured, rng: np.random.Generator) -> list[Entry]:
    """The training chunks of a seen series, in random order."""
    train = periods(series.values.shape[1]).train
    cuts = samples(series, train, CHUNK, len(train) // CHUNK)
    return [Entry("train", series, cuts[k]) for k in rng.permutation(len(cuts))]


def evaluated(series: Measured) -> Iterator[Entry]:
    """The samples of one series in all splits but `train`."""
    steps = series.values.shape[1]
    spans = {"val": periods(steps).val, "test": periods(steps).test}
    if series.role != "seen":
        spans = {"ood_station": periods(steps).test} if series.role == "station" else {"ood_source": range(steps)}
    for split, span in spans.items():
        for sample in samples(series, span, SEGMENT, SEGMENTS.get(split, SEGMENTS["test"])):
            yield Entry(split, series, sample)
    if series.role != "seen":
        return
    others = [] if series.finer is None else [faster(series, series.finer)]
    if series.source in COARSER:
        others.append(slower(series, *COARSER[series.source]))
    for other in others:
        octaves = abs(log2(step(other.freq) / step(series.freq)))
        for sample in samples(other, range(other.values.shape[1]), SEGMENT, SEGMENTS["test"]):
            yield Entry("ood_frequency", other, sample, octaves)


def in_turn(lists: Iterable[list[Entry]]) -> list[Entry]:
    """The first of every list, then the second of every list that has one, and so on."""
    return [entry for row in zip_longest(*lists) for entry in row if entry is not None]


def by_source(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries of each source, in the order in which the sources first come."""
    lists: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        lists[entry.series.source].append(entry)
    return list(lists.values())


def training(seen: list[Measured], rng: np.random.Generator) -> list[Entry]:
    """All of `train`: series take turns within a source, and sources, in an order that is drawn, among each other."""
    sources = by_source(in_turn(chunks(series, rng) for series in seen))
    return in_turn(sources[k][:MOST_CHUNKS] for k in rng.permutation(len(sources)))


def generate(out: Path, tables: Path | None = None, seed: int = SEED, log: Callable[[str], None] = silent) -> None:
    """Write the whole data set to `out`, from the archives of packages in the folder `tables`; under a minute.

    `log` gets a line for each series.
    """
    if tables is None:
        raise UserError("science-series is made from tables in other packages; name their folder with --tables")
    everything = list(read_all(tables))
    entries = training([series for series in everything if series.role == "seen"], np.random.default_rng(seed))
    for series in everything:
        log(f"{series.group}: {series.values.shape[1]} steps of {series.freq}, {len(series.values)} channels")
    # Sources take turns in every split, so that the first samples of each are balanced.
    entries += in_turn(by_source(entry for series in everything for entry in evaluated(series)))
    with StoreWriter(out, "series") as writer:
        for entry in entries:
            writer.append(entry.sample, entry.series.group, source=entry.series.source, octaves=entry.octaves)
        for split, shift in SHIFTS.items():
            members = [k for k, entry in enumerate(entries) if entry.split == split]
            graded = split == "ood_frequency"
            severity = float(np.mean([entries[k].octaves for k in members])) if graded else None
            disjoint = split in ("ood_station", "ood_source")
            writer.split(split, np.array(members), shift, severity, disjoint, "octaves" if graded else None)
