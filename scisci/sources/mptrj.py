"""MPtrj: one JSON file of materials, their frames, and in each a pymatgen structure with eV, eV/Å and kbar.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023). Its stress has VASP's sign, compression positive, so that
-0.1 GPa/kbar takes it to the tensile-positive one, as in CHGNet's loader.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ijson
import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.labels import NONE, Labels

LABELS = {"energy": "uncorrected_total_energy", "forces": "force", "stress": "stress"}


def _structure(value: Mapping[str, Any]) -> AtomsSample | str:
    """The atoms of a pymatgen structure, or why it has none."""
    cell = np.array(value["lattice"]["matrix"], dtype=np.float64)
    numbers = []
    for k, site in enumerate(value["sites"]):
        (kind, *others) = site["species"]
        if others or kind.get("occu", 1) != 1:
            return f"site {k} is disordered"
        if kind["element"] not in atomic_numbers:
            return f"its element {kind['element']!r} is unknown"
        numbers.append(atomic_numbers[kind["element"]])
    fractional = np.array([site["abc"] for site in value["sites"]], dtype=np.float64).reshape(-1, 3)
    periodic = np.array(value["lattice"].get("pbc", [True] * 3))
    return AtomsSample(np.array(numbers), fractional @ cell, cell, periodic)


def _converted(name: str, value: Any, atoms: int) -> Any:
    """A label in eV, eV/Å or eV/Å³, of the whole cell."""
    if "stress" in name:
        return np.array(value, dtype=np.float64).reshape(3, 3) * (-0.1 * GPa)
    return value * atoms if "per_atom" in name else value


def _frame(frame: dict[str, Any], labels: Labels, wanted: set[str], where: str, material: str) -> Frame | BadFrame:
    try:
        structure = _structure(frame["structure"])
        if isinstance(structure, str):
            return BadFrame(where, structure)
        if lost := [name for name in sorted(wanted) if name in frame and frame[name] is None]:
            return BadFrame(where, f"{lost[0]} was not computed (it is null)")
        atoms = len(structure.numbers)
        entries = {k: _converted(k, v, atoms) if k in wanted else v for k, v in frame.items() if k != "structure"}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{where} is not as MPtrj has it ({error!r}); correct the file") from error
    return labels.frame(where, structure, entries, {"group": material})


def _materials(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            yield from ijson.kvitems(file, "", use_float=True)
    except (ijson.JSONError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not whole JSON ({error}); get it again") from error


def read_mptrj(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream MPtrj's JSON file, plain or gzipped, a material at a time; the group is the material.

    The energy is the uncorrected DFT total, which the forces belong to; `--key energy=corrected_total_energy` chooses
    the one with the Materials Project's MP2020 corrections, and energies per atom are multiplied by their number. A
    frame with a label that is null was not computed, so it is a `BadFrame`. The frame's name is metadata.
    """
    path, names = Path(path), {**LABELS, **(keys or {})}
    labels, wanted, count = Labels(names), set(names.values()) - {NONE}, 0
    for material, frames in _materials(path):
        if not isinstance(frames, dict):
            raise UserError(f"{material} in {path} is not frames by name; give MPtrj's JSON")
        for name, frame in frames.items():
            count += 1
            read = _frame(frame, labels, wanted, f"frame {name} of {material} in {path}", material)
            yield replace(read, metadata={**read.metadata, "frame": name}) if isinstance(read, Frame) else read
    if not count:
        raise UserError(f"{path} has no frames; give a JSON of materials with frames")
