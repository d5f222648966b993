"""rMD17 and MD17: an npz file per molecule, in Å and kcal/mol.

Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020); Chmiela et al., Sci. Adv. 3, e1603015
(2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ase.units import kcal, mol

from scisci.contracts.errors import UserError
from scisci.sources.conformers import Column, Quantity, chosen, conformers
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.npz import npz_columns

# Names of the numbers, the positions and the labels, in rMD17 and in MD17.
LAYOUTS = {
    "nuclear_charges": ("coords", {"energy": "energies", "forces": "forces"}),
    "z": ("R", {"energy": "E", "forces": "F"}),
}
# Files of MD17's layout may state their units, and then the units have to be these.
UNITS = {"r_unit": "Ang", "e_unit": "kcal/mol"}


def _check_units(columns: Mapping[str, Column], path: Path) -> None:
    for name, unit in UNITS.items():
        if name in columns:
            if columns[name].dtype.kind not in "SU":
                raise UserError(f"{path} does not say in words what its {name} is; save it as text")
            (stated,) = np.concatenate(list(columns[name].blocks())).astype(str)
            if stated != unit:
                raise UserError(f"{path} states {name} {stated}, but MD17 is in {unit}; convert it")


def read_rmd17(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream an rMD17 or MD17 npz file, told apart by their keys; the group is the file's name.

    `keys` maps `energy` and `forces` to other arrays of the file, such as rMD17's `old_energies`, or to `none`.
    """
    path = Path(path)
    with npz_columns(path) as columns:
        numbers = next((name for name in LAYOUTS if name in columns), None)
        if numbers is None:
            found = ", ".join(sorted(columns)) or "nothing"
            raise UserError(
                f"{path} has neither nuclear_charges (rMD17) nor z (MD17); it has {found}; give such a file"
            )
        _check_units(columns, path)
        positions, labels = LAYOUTS[numbers]
        wanted = {"numbers": Quantity(numbers), "positions": Quantity(positions)}
        wanted |= {label: Quantity(name, kcal / mol) for label, name in chosen(labels, keys or {}).items()}
        yield from conformers(columns, wanted, str(path), path.stem)
