"""Rows of HDF5 data sets through a memory map, where scattered samples cost one gather instead of a call for each."""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

ROWS_AT_ONCE = 2**18
# After so many bytes read, the pages of a file are let go of, so that a pass over it is not memory in use.
RESIDENT_BYTES = 2**23


class MappedFile:
    """The bytes of a file, paged in as they are touched."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.content = np.frombuffer(self._map, dtype=np.uint8)
        self._touched = 0

    def touch(self, nbytes: int) -> None:
        """Count bytes read, and let go of all pages from time to time."""
        self._touched += nbytes
        if self._touched > RESIDENT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class MappedRows:
    """The rows of a chunked, uncompressed data set; every chunk is held against its Fletcher-32 sum once."""

    def __init__(self, node: h5py.Dataset, file: MappedFile) -> None:
        self._node, self._file = node, file
        self._dtype, self._shape = node.dtype, node.shape[1:]
        self._width = node.dtype.itemsize * int(np.prod(self._shape))
        if node.chunks is None or node.id.get_create_plist().get_nfilters() > node.fletcher32:
            raise RuntimeError(f"{node.name} is laid out otherwise")
        self._per_chunk = node.chunks[0]

    @cached_property
    def _starts(self) -> np.ndarray:
        starts = np.zeros(-(-self._node.shape[0] // self._per_chunk), dtype=np.int64)
        rows = self._per_chunk
        self._node.id.chunk_iter(lambda chunk: starts.__setitem__(chunk.chunk_offset[0] // rows, chunk.byte_offset))
        return starts

    @cached_property
    def _unchecked(self) -> np.ndarray:
        return np.full(len(self._starts), self._node.fletcher32)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at these positions; `RuntimeError` if one lies in a chunk that was altered."""
        # Records of raw bytes that begin at every byte: a gather that asks for no alignment.
        size = len(self._file.content) - self._width + 1
        records = np.ndarray((size,), f"V{self._width}", self._file.content, strides=(1,))
        out = np.empty(len(rows), records.dtype)
        for at in range(0, len(rows), ROWS_AT_ONCE):
            chunk, row = np.divmod(rows[at : at + ROWS_AT_ONCE], self._per_chunk)
            if (new := self._unchecked[chunk]).any():
                self._check(np.unique(chunk[new]))
            out[at : at + ROWS_AT_ONCE] = records[self._starts[chunk] + row * self._width]
            self._file.touch(len(row) * self._width)
        return out.view(self._dtype).reshape(-1, *self._shape)

    def _check(self, chunks: np.ndarray) -> None:
        size = self._per_chunk * self._width
        for chunk, start in zip(chunks, self._starts[chunks], strict=True):
            content = self._file.content[start : start + size]
            if fletcher32(content) != self._file.content[start + size : start + size + 4].copy().view("<u4")[0]:
                raise RuntimeError(f"{self._node.name} was altered in chunk {chunk}")
            self._unchecked[chunk] = False
            self._file.touch(size)


def fletcher32(content: np.ndarray) -> int:
    """The checksum that HDF5 appends to a chunk, over big-endian 16-bit words (H5checksum.c of HDF5).

    `content` [n] are bytes, at most a mebibyte; an odd one at the end is the high byte of a last word.
    """
    words = np.pad(content, (0, len(content) % 2)).view(">u2").astype(np.float64)
    # Both sums are whole numbers below 2^53, so this is exact.
    first, second = words.sum(), words @ np.arange(len(words), 0, -1.0)
    return _folded(int(second)) << 16 | _folded(int(first))


def _folded(total: int) -> int:
    # End-around carries leave 0xFFFF, not 0, for multiples of it; only a sum of zeros is zero.
    return (total - 1) % 0xFFFF + 1 if total else 0
