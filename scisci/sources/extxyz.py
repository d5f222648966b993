"""Extended XYZ through ASE: labels are looked up by key, and a key that is not there is an error, never a zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.stress import voigt_6_to_full_3x3_stress

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.sources.frames import BadFrame, Frame, checked

REQUIRED = ("energy", "forces")
STRESS = ("stress", "virials", "virial")
NONE = "none"
# Prefixes of a level of theory, tried in this order: MACE's, then the plain names.
PREFIXES = ("REF_", "")


def _labels(atoms: Atoms) -> dict[str, Any]:
    # ASE moves plain energy, forces and stress into a calculator.
    calculated = atoms.calc.results if atoms.calc is not None else {}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    return {**arrays, **atoms.info, **calculated}


def _missing(what: str, names: str, labels: Mapping[str, Any], where: str) -> UserError:
    found = ", ".join(sorted(labels)) or "no labels at all"
    return UserError(f"{where} has no {what} under {names}; it has {found}; name the right one with --key {what}=NAME")


def _stress_names(names: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """Names under which the stress of the same level of theory as the chosen labels can be."""
    if "stress" in given:
        return [] if given["stress"] == NONE else [given["stress"]]
    prefix = next((p for p in PREFIXES if all(names[label] == p + label for label in REQUIRED)), None)
    return [] if prefix is None else [prefix + name for name in STRESS]


def _choose(labels: Mapping[str, Any], given: Mapping[str, str], where: str) -> dict[str, str]:
    """The name in the file of each label, all of one level of theory; stress only if the frame has it."""
    for prefix in PREFIXES:
        names = {label: given.get(label, prefix + label) for label in REQUIRED}
        if all(name in labels for name in names.values()):
            found = [name for name in _stress_names(names, given) if name in labels]
            if "stress" in given and given["stress"] != NONE and not found:
                raise _missing("stress", given["stress"], labels, where)
            return names | {"stress": found[0]} if found else names
    for label in REQUIRED:
        tried = [given[label]] if label in given else [prefix + label for prefix in PREFIXES]
        if not any(name in labels for name in tried):
            raise _missing(label, " or ".join(tried), labels, where)
    raise UserError(
        f"{where} has energy and forces of different levels of theory; it has {', '.join(sorted(labels))}; name those"
        " that belong together with --key energy=NAME --key forces=NAME"
    )


def _stress(name: str, value: Any, atoms: Atoms, where: str) -> np.ndarray:
    """[3, 3] eV/Å³, tensile positive, from a stress (ASE's sign) or a virial, which is minus stress times volume."""
    value = np.asarray(value, dtype=np.float64)
    if value.shape == (6,):
        value = voigt_6_to_full_3x3_stress(value)
    value = value.reshape(3, 3) if value.shape == (9,) else value
    if "virial" not in name.lower():
        return value
    if atoms.cell.volume == 0:
        raise UserError(f"{where} has a virial under {name} but no cell, so it has no stress; correct the file")
    return -value / atoms.cell.volume


def _frames(path: Path) -> Iterator[Atoms]:
    try:
        yield from iread(path, index=":", format="extxyz")
    except (ValueError, KeyError, IndexError, OSError, StopIteration, RuntimeError) as error:
        raise UserError(f"{path} is not valid extended XYZ ({error}); correct the file") from error


def _group(atoms: Atoms) -> str:
    named = (atoms.info.get(key) for key in ("group", "config_type"))
    return str(next((name for name in named if name is not None), atoms.get_chemical_formula()))


def _sample(atoms: Atoms, labels: Mapping[str, Any], names: Mapping[str, str], where: str) -> AtomsSample:
    for label, name in names.items():
        if name not in labels:
            raise _missing(label, f"{name} as frame 0 has", labels, where)
    return AtomsSample(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        energy=labels[names["energy"]],
        forces=labels[names["forces"]],
        stress=_stress(names["stress"], labels[names["stress"]], atoms, where) if "stress" in names else None,
    )


def read_extxyz(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream an extended XYZ file; energies in eV, forces in eV/Å, stress in eV/Å³.

    `keys` maps `energy`, `forces` and `stress` to the names they have in the file; without it, frame 0 decides
    between `REF_energy` with `REF_forces` and the plain names, and every frame must have the same, so levels of
    theory are never mixed. A stress (or a virial) beside them is read too, unless `stress` is mapped to `none`;
    beside names of your own it is read only under the name you give. The group is the frame's `group` or
    `config_type`, or else its chemical formula. `UserError` names file, frame and the keys found.
    """
    given = dict(keys or {})
    if unknown := set(given) - {*REQUIRED, "stress"}:
        raise UserError(f"--key {sorted(unknown)[0]}=… is not a label of extended XYZ; use energy, forces or stress")
    names: dict[str, str] = {}
    for count, atoms in enumerate(_frames(Path(path))):
        where, labels = f"frame {count} of {path}", _labels(atoms)
        names = names or _choose(labels, given, where)
        if "stress" not in names and (found := [n for n in _stress_names(names, given) if n in labels]):
            raise UserError(
                f"{where} has a stress under {found[0]} where frame 0 has none; it has {', '.join(sorted(labels))};"
                f" leave stress out with --key stress={NONE}"
            )
        yield checked(Frame(where, _sample(atoms, labels, names, where), _group(atoms)))
    if not names:
        raise UserError(f"{path} has no frames; give a file with at least one")
