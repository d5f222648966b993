"""CosmoBench's point clouds: an HDF5 file with a group per simulation, in comoving Mpc/h and km/s.

Huang et al., arXiv:2507.03707. `LH/LH_<i>/{X,Y,Z,VX,VY,VZ,...}` (`BSQ` in Quijote) has the points of cloud i, and row i
of `params/{Omega_m,sigma_8,...}` its parameters, so groups go by their number: by name, LH_10 comes before LH_2. In the
files of the splits, whose groups are numbered anew, `original_ids` or `params/LH` says which simulations they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.sources.clouds import LABELS, PARAMETERS, cloud_frame, point_columns
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Counted, Frame, undamaged
from scisci.sources.hdf5 import opened

PRIOR = {"omega_m": (0.1, 0.5), "sigma_8": (0.6, 1.0)}
ROUNDING = 1e-6
ORIGINAL = "original_ids"


@dataclass(frozen=True)
class Suite:
    """One set of simulations: the group that has its clouds, and the side of its boxes in Mpc/h."""

    group: str
    box: float


@dataclass(frozen=True)
class _Index:
    """Cloud by cloud, in the order of their numbers: group, simulation, and row k of each parameter."""

    groups: list[str]
    simulations: list[str]
    parameters: dict[str, np.ndarray]


def read_cosmobench(path: Path | str, keys: Mapping[str, str] | None = None, *, suite: Suite) -> Counted:
    """Stream one file of a suite; the group is the simulation, parameters besides Omega_m and sigma_8 are metadata.

    `keys` maps `velocities` and `masses` (in Msun/h, not read by default) to columns, `omega_m` and `sigma_8` to
    entries of `params`, or any of them to `none`.
    """
    path, labels = Path(path), chosen(LABELS, keys or {})
    columns = point_columns(labels)
    names = {label: labels[label] for label in PARAMETERS if label in labels}
    with opened(path) as file:
        index = _index(file, suite, path)
        for label, name in names.items():
            _check_parameter(index, label, name, path)
    return Counted(undamaged(_clouds(path, suite, index, columns, names), path, "cloud"), len(index.groups))


read_quijote = partial(read_cosmobench, suite=Suite("BSQ", 1000.0))
read_camels_sam = partial(read_cosmobench, suite=Suite("LH", 100.0))
read_camels_tng = partial(read_cosmobench, suite=Suite("LH", 25.0))


def _clouds(
    path: Path, suite: Suite, index: _Index, columns: Mapping[str, list[str]], names: Mapping[str, str]
) -> Iterator[Frame | BadFrame]:
    others = {name: values for name, values in index.parameters.items() if name not in names.values()}
    with opened(path) as file:
        for k, (group, simulation) in enumerate(zip(index.groups, index.simulations, strict=True)):
            where = f"{group} of {path}"
            values = _points(file[group], columns, where)
            parameters = {label: float(index.parameters[name][k]) for label, name in names.items()}
            metadata = {name: row[k].item() for name, row in others.items()}
            yield cloud_frame(where, values, columns, suite.box, simulation, parameters, metadata)


def _points(group: h5py.Group, columns: Mapping[str, list[str]], where: str) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for label, names in columns.items():
        for name in names:
            if name not in group:
                raise UserError(
                    f"{where} has no {name}, for {label}; it has {', '.join(group) or 'nothing'}; name the right one"
                    f" with --key {label}=NAME, or do without it with --key {label}=none"
                )
            values[name] = group[name][...]
            first = next(iter(values.values()))
            if values[name].ndim != 1 or len(values[name]) != len(first) or values[name].dtype.kind not in "iuf":
                raise UserError(
                    f"{where} has {values[name].dtype} of shape {values[name].shape} under {name}, where it has"
                    f" {len(first)} points; get the file again"
                )
    return values


def _index(file: h5py.File, suite: Suite, path: Path) -> _Index:
    """What the file says of its clouds; `UserError` where it is not certain which parameters are whose."""
    name = suite.group
    found = {int(m[1]): key for key in file.get(name, ()) if (m := re.fullmatch(rf"{name}_(\d+)", key))}
    if not found:
        raise UserError(
            f"{path} has no groups {name}/{name}_0, ...; it has {', '.join(file) or 'nothing'}; choose the format of"
            " its suite"
        )
    if "params" not in file:
        raise UserError(f"{path} has no params, which hold Omega_m and sigma_8; it has {', '.join(file)}; get it again")
    rows = {key: node[...] for key, node in file["params"].items() if node.shape}
    if place := next((place for place in (ORIGINAL, f"{name}/{ORIGINAL}") if place in file), None):
        rows[ORIGINAL] = file[place][...]
    for key, values in rows.items():
        if values.size != len(found):
            raise UserError(
                f"{path} has {len(found)} clouds in {name}, but {key} of shape {values.shape} instead of one value per"
                " cloud; get it again"
            )
        rows[key] = values.ravel()
    numbers = np.array(sorted(found))
    order = _order(numbers, rows.get(name), name, path)
    original = rows.pop(ORIGINAL, rows.pop(name, None))
    simulations = [f"{path.stem}/{name}_{number}" for number in numbers]
    if original is not None:
        names = [value.decode() if isinstance(value, bytes) else str(value) for value in original[order].tolist()]
        simulations = [f"{name}_{value.removeprefix(f'{name}_')}" for value in names]
    parameters = {key: values[order] for key, values in rows.items() if values.dtype.kind in "iuf"}
    return _Index([f"{name}/{found[number]}" for number in numbers.tolist()], simulations, parameters)


def _order(numbers: np.ndarray, ids: np.ndarray | None, group: str, path: Path) -> np.ndarray:
    """The row of `params` that belongs to each cloud: that of its number, or that with its number among `ids`."""
    by_id = None if ids is None or not np.array_equal(np.sort(ids), numbers) else np.argsort(ids)
    if np.array_equal(numbers, np.arange(len(numbers))):
        if by_id is not None and not np.array_equal(by_id, numbers):
            raise UserError(
                f"params/{group} of {path} has the numbers of its groups in another order, so it is not certain which"
                " row of params belongs to which cloud; sort params"
            )
        return numbers
    if by_id is None:
        lost = np.setdiff1d(np.arange(len(numbers)), numbers)[0]
        raise UserError(
            f"{path} has no {group}/{group}_{lost} but later ones, so it is not certain which row of params belongs to"
            f" which cloud; number the groups from 0 on, or give their numbers as params/{group}"
        )
    return by_id


def _check_parameter(index: _Index, label: str, name: str, path: Path) -> None:
    if name not in index.parameters:
        raise UserError(
            f"{path} has no params/{name}, for {label}; params has {', '.join(index.parameters) or 'nothing'}; name the"
            f" right one with --key {label}=NAME, or do without it with --key {label}=none"
        )
    values, (low, high) = index.parameters[name], PRIOR[label]
    beyond = np.flatnonzero((values < low - ROUNDING) | (values > high + ROUNDING))
    if len(beyond):
        raise UserError(
            f"params/{name} of {path} is {values[beyond[0]]:g} for {index.groups[beyond[0]]}, but {label} is from"
            f" {low:g} to {high:g} in CosmoBench; correct the file"
        )
