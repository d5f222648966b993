"""SPICE: an HDF5 file with a group per molecule or cluster, in bohr, Hartree and Hartree/bohr.

Eastman et al., Sci. Data 10, 11 (2023) and J. Chem. Theory Comput. 20, 8583 (2024).
The layout is that of the data set's own downloader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
from ase.units import Bohr, Hartree

from scisci.contracts.errors import UserError
from scisci.sources.conformers import Quantity, chosen, conformers
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.hdf5 import columns, molecules

LABELS = {"energy": "dft_total_energy", "forces": "dft_total_gradient"}
UNITS = {"positions": ("bohr", Bohr), "energy": ("hartree", Hartree), "forces": ("hartree/bohr", -Hartree / Bohr)}


def formal_charge(smiles: str) -> int:
    """Total charge of a molecule: the sum over the bracket atoms of its SMILES, the only ones that carry a charge."""
    charges = re.findall(r"\[[^]]*?(\++|-+)(\d*)(?::\d+)?\]", smiles)
    return sum((1 if sign[0] == "+" else -1) * (int(size) if size else len(sign)) for sign, size in charges)


def _text(group: h5py.Group, name: str) -> str | None:
    if name not in group:
        return None
    value = group[name][()]
    value = value.flat[0] if hasattr(value, "flat") else value
    return value.decode() if isinstance(value, bytes) else str(value)


def read_spice(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream a SPICE file; forces are minus the gradient, the group is the molecule's name, `subset` is metadata.

    The total charge comes from the molecule's SMILES. `keys` maps `energy` to another energy of the file, such as
    `formation_energy`, and `forces` to another gradient (its sign is turned too), or either to `none`.
    """
    path, labels = Path(path), chosen(LABELS, keys or {})
    names = {"positions": "conformations"} | labels
    with molecules(path) as groups:
        for name, group in groups:
            where = f"{name} in {path}"
            for what, key in names.items():
                unit = UNITS[what][0]
                if key in group and (stated := group[key].attrs.get("units", unit)) != unit:
                    raise UserError(f"{where} has {key} in {stated}, but SPICE is in {unit}; convert it")
            wanted = {"numbers": Quantity("atomic_numbers")}
            wanted |= {what: Quantity(key, UNITS[what][1]) for what, key in names.items()}
            smiles, subset = _text(group, "smiles"), _text(group, "subset")
            charge = None if smiles is None else formal_charge(smiles)
            metadata = {} if subset is None else {"subset": subset}
            yield from conformers(columns(group), wanted, where, name, charge, metadata)
