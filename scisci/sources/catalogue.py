"""Halo and galaxy catalogues as tables: CSV or Parquet, of Quijote, CAMELS or any other periodic boxes.

One table with a column that names the simulation of each row (rows of a simulation one after the other), with the
parameters in columns too; or a folder with a table per simulation, called by its name, and `parameters.csv` or
`parameters.parquet`, with a row for each.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from scisci.contracts.errors import UserError, unknown_name
from scisci.sources import clouds
from scisci.sources.clouds import cloud_frame, point_columns
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Counted, Frame, undamaged

LABELS = clouds.LABELS | {"simulation": "simulation", "box": "box", "unit": "Mpc/h"}
UNITS = {"Mpc/h": 1.0, "kpc/h": 1e-3}
SUFFIXES = (".csv", ".parquet")
Columns = dict[str, np.ndarray]


def read_catalogue(path: Path | str, keys: Mapping[str, str] | None = None) -> Counted | Iterator[Frame | BadFrame]:
    """Stream clouds out of a table, or a folder of tables; the group is the simulation.

    `keys` maps `positions` and `velocities` (km/s) to three columns each, such as `positions=x,y,z`, `masses` (Msun/h)
    to one, `simulation`, `omega_m` and `sigma_8` to one each, and any of them but `positions` and `simulation` to
    `none`. `box` is a column or a number, the side of the box; `unit` says that lengths, that of the box too, are in
    `Mpc/h` or `kpc/h`. Other columns are not read.
    """
    path, labels = Path(path), chosen(LABELS, keys or {})
    unit = labels.pop("unit", "")
    if unit not in UNITS:
        raise unknown_name("unit in --key", unit, UNITS)
    reader = _Reader(labels, UNITS[unit])
    if not path.is_dir():
        return undamaged(reader.table(path), path, "simulation")
    files = {file.stem: file for file in sorted(path.iterdir(), key=_natural) if file.suffix in SUFFIXES}
    table = files.pop("parameters", None)
    rows = reader.parameters(table, path)
    for simulation in files.keys() ^ rows.keys() if rows else ():
        lacking, where = ("row", table) if simulation in files else ("table", path)
        raise UserError(f"{where} has no {lacking} for the simulation {simulation}; add it, or remove the other one")
    if not files:
        raise UserError(f"{path} has no tables (.csv, .parquet); give a table, or a folder of them")
    frames = (reader.file(file, simulation, rows.get(simulation, {})) for simulation, file in files.items())
    return Counted(undamaged(frames, path, "simulation"), len(files))


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


class _Reader:
    """Makes clouds of columns, named by `labels`, with lengths in `unit` Mpc/h."""

    def __init__(self, labels: Mapping[str, str], unit: float) -> None:
        self.points, self.unit = point_columns(labels), unit
        self.simulation = labels.get("simulation", "simulation")
        self.given, self.of_simulation = {}, {label: labels[label] for label in clouds.PARAMETERS if label in labels}
        try:
            self.given["box"] = float(labels["box"])
        except KeyError:
            raise UserError("clouds need a periodic box; give its side with --key box=SIDE") from None
        except ValueError:
            self.of_simulation["box"] = labels["box"]

    def table(self, path: Path) -> Iterator[Frame | BadFrame]:
        """The clouds of one table."""
        names = [name for columns in self.points.values() for name in columns]
        for simulation, values in _simulations(path, self.simulation, [*names, *self.of_simulation.values()]):
            where = f"simulation {simulation} of {path}"
            for name in self.of_simulation.values():
                if len(np.unique(values[name])) > 1:
                    raise UserError(
                        f"{where} has several values of {name}, which is one for all its points; correct it"
                    )
            yield self.frame(where, simulation, values, {n: values[n][0] for n in self.of_simulation.values()})

    def file(self, path: Path, simulation: str, row: Mapping[str, float]) -> Frame | BadFrame:
        """The cloud of a table that is one simulation; `row` has its parameters by column."""
        names = [name for columns in self.points.values() for name in columns]
        batches = list(_batches(path, names, None))
        values = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
        return self.frame(str(path), simulation, values, row)

    def frame(self, where: str, simulation: str, values: Columns, row: Mapping[str, float]) -> Frame | BadFrame:
        """One cloud in Mpc/h."""
        found = self.given | {label: float(row[name]) for label, name in self.of_simulation.items()}
        scaled = {name: values[name] * self.unit for name in self.points["positions"]}
        return cloud_frame(where, values | scaled, self.points, found.pop("box") * self.unit, simulation, found)

    def parameters(self, path: Path | None, folder: Path) -> dict[str, dict[str, float]]:
        """Simulation → its parameters by column; empty if none are asked for."""
        names = list(self.of_simulation.values())
        if not names:
            return {}
        if path is None:
            raise UserError(
                f"{folder} has no parameters.csv or parameters.parquet with {', '.join(names)} of each simulation; add"
                " it, or do without with --key omega_m=none --key sigma_8=none and --key box=SIDE"
            )
        rows: dict[str, dict[str, float]] = {}
        for simulation, values in undamaged(_simulations(path, self.simulation, names), path, "row"):
            if len(values[names[0]]) > 1:
                raise UserError(f"{path} has more than one row for the simulation {simulation}; keep one")
            rows[simulation] = {name: values[name][0] for name in names}
        return rows


def _simulations(path: Path, key: str, names: list[str]) -> Iterator[tuple[str, Columns]]:
    """Name and columns of each simulation of a table, in which its rows are one after the other."""
    seen: set[str] = set()
    current, parts = None, list[Columns]()
    for batch in _batches(path, names, key):
        simulation = batch.pop(key)
        edges = np.flatnonzero(simulation[1:] != simulation[:-1]) + 1
        for start, stop in zip([0, *edges], [*edges, len(simulation)], strict=True):
            if simulation[start] != current:
                if current is not None:
                    yield current, _joined(parts)
                current, parts = simulation[start], []
                if current in seen:
                    raise UserError(f"{path} has rows of the simulation {current} in several places; sort it by {key}")
                seen.add(current)
            parts.append({name: values[start:stop] for name, values in batch.items()})
    if current is not None:
        yield current, _joined(parts)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batches(path: Path, names: list[str], key: str | None) -> Iterator[Columns]:
    """Columns of a table, some rows at a time: numbers as float64, NaN where there is none, and `key` as text."""
    wanted = list(dict.fromkeys([*names, *([] if key is None else [key])]))
    if path.suffix == ".parquet":
        file = parquet.ParquetFile(path)
        _check_columns(wanted, file.schema_arrow.names, path)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(columns=wanted, use_threads=False)
    else:
        with path.open(newline="", encoding="utf-8") as text:
            _check_columns(wanted, next(csv.reader(text), []), path)
        types = {name: pa.string() if name == key else pa.float64() for name in wanted}
        options = arrow_csv.ConvertOptions(include_columns=wanted, column_types=types)
        batches = iter(arrow_csv.open_csv(path, arrow_csv.ReadOptions(use_threads=False), convert_options=options))
    for batch in batches:
        kinds = {name: pa.string() if name == key else pa.float64() for name in wanted}
        yield {n: batch[n].cast(kind).to_numpy(zero_copy_only=False) for n, kind in kinds.items() if len(batch)}


def _check_columns(wanted: list[str], found: list[str], path: Path) -> None:
    for name in wanted:
        if name not in found:
            raise UserError(
                f"{path} has no column {name}; it has {', '.join(found) or 'none'}; name the right ones with --key,"
                " such as --key positions=x,y,z --key simulation=box_id --key box=1000"
            )
