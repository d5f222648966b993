"""HDF5 data sets with a group per molecule, read a block of conformers at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.sources.conformers import BLOCK, Column
from scisci.sources.frames import DAMAGE


def _blocks(node: h5py.Dataset) -> Iterator[np.ndarray]:
    return (node[first : first + BLOCK] for first in range(0, len(node), BLOCK))


def columns(group: h5py.Group) -> dict[str, Column]:
    """The arrays of a group by name."""
    arrays = {name: node for name, node in group.items() if isinstance(node, h5py.Dataset) and node.shape}
    return {name: Column(node.shape, node.dtype, partial(_blocks, node)) for name, node in arrays.items()}


def _groups(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Group]]:
    for name in file:
        if not isinstance(file[name], h5py.Group):
            raise UserError(
                f"{path} has the array {name} at its top, where each molecule has a group; give such a file"
            )
        yield name, file[name]


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A file to be read; `UserError` if it is no HDF5, is cut off or damaged, on opening or while it is read."""
    try:
        with h5py.File(path) as file:
            yield file
    except (RuntimeError, *DAMAGE) as error:
        raise UserError(f"{path} is not a whole HDF5 file ({error}); get it again") from error


@contextmanager
def molecules(path: Path) -> Iterator[Iterator[tuple[str, h5py.Group]]]:
    """Name and group of each molecule of a file; `UserError` as for `opened`."""
    with opened(path) as file:
        yield _groups(file, path)
