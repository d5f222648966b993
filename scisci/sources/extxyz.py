"""Extended XYZ through ASE: labels are looked up by key, and a key that is not there is an error, never a zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample, problem

# Tried in this order: MACE's names, then the plain ones. ASE moves plain energy and forces into a calculator.
ENERGY_KEYS = ("REF_energy", "energy")
FORCES_KEYS = ("REF_forces", "forces")


def _labels(atoms: Atoms) -> dict[str, Any]:
    calculated = atoms.calc.results if atoms.calc is not None else {}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    return {**arrays, **atoms.info, **calculated}


def _label(labels: dict[str, Any], wanted: str | None, defaults: tuple[str, ...], what: str, where: str) -> Any:
    keys = (wanted,) if wanted else defaults
    for key in keys:
        if key in labels:
            return labels[key]
    found = ", ".join(sorted(labels)) or "no labels at all"
    raise UserError(
        f"{where} has no {what} under {' or '.join(keys)}; it has {found}; name the right one with --key {what}=NAME"
    )


def _frames(path: Path) -> Iterator[Atoms]:
    try:
        yield from iread(path, index=":", format="extxyz")
    except (ValueError, KeyError, IndexError, OSError, StopIteration, RuntimeError) as error:
        raise UserError(f"{path} is not valid extended XYZ ({error}); correct the file") from error


def read_extxyz(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[tuple[AtomsSample, str]]:
    """Stream (sample, group) pairs from an extended XYZ file; energies in eV, forces in eV/Å.

    `keys` maps `energy` and `forces` to the names they have in the file. The group is the chemical formula, or
    the frame's `config_type` or `group` if it has one. `UserError` names file, frame and the keys found.
    """
    keys = keys or {}
    if unknown := set(keys) - {"energy", "forces"}:
        raise UserError(f"--key {sorted(unknown)[0]}=… is not a label of extended XYZ; use energy or forces")
    count = 0
    for count, atoms in enumerate(_frames(Path(path)), start=1):
        where = f"frame {count - 1} of {path}"
        labels = _labels(atoms)
        sample = AtomsSample(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=np.asarray(atoms.cell),
            pbc=atoms.pbc,
            energy=_label(labels, keys.get("energy"), ENERGY_KEYS, "energy", where),
            forces=_label(labels, keys.get("forces"), FORCES_KEYS, "forces", where),
        )
        if wrong := problem(sample):
            raise UserError(f"{where} cannot be used: {wrong}; correct the file")
        group = str(labels.get("group") or labels.get("config_type") or atoms.get_chemical_formula())
        yield sample, group
    if not count:
        raise UserError(f"{path} has no frames; give a file with at least one")
