"""The arrays of an npz file as streams out of its zip archive, so that one of any length takes the same memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from scisci.contracts.errors import UserError
from scisci.sources.conformers import BLOCK, Column


def _blocks(
    archive: zipfile.ZipFile, member: str, start: int, shape: tuple[int, ...], dtype: np.dtype, by_column: bool
) -> Iterator[np.ndarray]:
    """Rows of an array whose data begins at byte `start`; one in Fortran order is read by a stream per column."""
    width = math.prod(shape[1:])
    streams = [archive.open(member) for _ in range(width if by_column else 1)]
    for k, stream in enumerate(streams):
        stream.read(start)  # not a seek, which can switch the checksum off
        if k:
            stream.seek(k * shape[0] * dtype.itemsize, 1)
    for first in range(0, shape[0], BLOCK):
        rows = min(BLOCK, shape[0] - first)
        size = rows * (1 if by_column else width) * dtype.itemsize
        parts = [stream.read(size) for stream in streams]
        if any(len(part) < size for part in parts):
            raise EOFError(f"{member} ends before its last row")
        values = np.stack([np.frombuffer(part, dtype) for part in parts], axis=-1)
        yield values.reshape(rows, *shape[1:], order="F" if by_column else "C")


def _column(archive: zipfile.ZipFile, member: str) -> Column:
    with archive.open(member) as stream:
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read(stream)
        start = stream.tell()
    shape = shape or (1,)
    return Column(shape, dtype, partial(_blocks, archive, member, start, shape, dtype, by_column))


@contextmanager
def npz_columns(path: Path) -> Iterator[dict[str, Column]]:
    """The arrays of an npz file by name, compressed or not; nothing is unpickled.

    `UserError` if the file is no npz, is cut off, or fails its checksums, on opening or while its blocks are read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            yield {name.removesuffix(".npy"): _column(archive, name) for name in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a whole npz file ({error}); get it again") from error
