"""ANI-1x and ANI-1ccx: an HDF5 file with a group per formula, in Å, Hartree and Hartree/Å; NaN where not computed.

Smith et al., Sci. Data 7, 134 (2020); layout of its data loader, aiqm/ANI1x_datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ase.units import Hartree

from scisci.sources.conformers import Quantity, chosen, conformers
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.hdf5 import columns, molecules
from scisci.sources.labels import NONE

ENERGY = "wb97x_dz.energy"


def read_ani1x(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream an ANI-1x file; the group is the formula.

    `keys` maps `energy` to that of another level of theory, such as `wb97x_tz.energy` or `ccsd(t)_cbs.energy`, and
    then `forces` are of that level too; levels without forces need `forces` mapped to `none`. A frame whose label was
    not computed is a `BadFrame`.
    """
    energy = (keys or {}).get("energy", ENERGY)
    level = (ENERGY if energy == NONE else energy).removesuffix(".energy")
    labels = chosen({"energy": ENERGY, "forces": f"{level}.forces"}, keys or {})
    wanted = {"numbers": Quantity("atomic_numbers"), "positions": Quantity("coordinates")}
    wanted |= {label: Quantity(name, Hartree) for label, name in labels.items()}
    with molecules(Path(path)) as groups:
        for name, group in groups:
            yield from conformers(columns(group), wanted, f"{name} in {path}", name)
