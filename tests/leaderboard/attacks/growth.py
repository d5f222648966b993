"""What grows when it is read."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np

from .registry import FILE, change, refused


@refused("says that 'forces' has 32,768 chunks but holds 0 (the rest would be made up on reading)")
def huge_shape_of_fill_values(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (2**31, 3), "f4", chunks=(2**16, 3), fillvalue=1.0)


@refused("in 715,827,883 chunks of 0.0 MiB; write up to 65,536 of up to 16 MiB")
def countless_chunks(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (2**31, 3), "f4", chunks=(3, 3))


@refused("in 1 chunks of 3,072.0 MiB")
def huge_chunk(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (240, 3), "f4", chunks=(2**28, 3), maxshape=(None, 3), compression=9)


@refused("says that 'forces' has 12,000,000,000,000 bytes, which it does not hold")
def huge_contiguous_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (10**12, 3), "f4")


@refused("has a chunk of 'energy' that inflates to more than its 96 bytes (a decompression bomb)")
def chunk_that_inflates(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        node = file.create_dataset("energy", (12,), "f8", chunks=(12,), compression=9)
        node.id.write_direct_chunk((0,), deflated_zeros(64))


def deflated_zeros(mebibytes: int) -> bytes:
    deflating = zlib.compressobj(9)
    return b"".join([deflating.compress(bytes(2**20)) for _ in range(mebibytes)]) + deflating.flush()


@refused("MiB when read; write it uncompressed or predict less")
def highly_compressible(folder: Path) -> None:
    change(folder, "forces", lambda _: np.zeros((2**22, 3), "f4"), chunks=(2**16, 3), compression=9)


@refused("has 12,000,000 ids; predict up to 8,388,608 samples")
def countless_ids(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.tile(ids, 10**6), chunks=(2**18,), compression=9)


@refused("has a chunk of 'energy' that is not as the array says")
def chunk_that_skips_its_filter(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        node = file.create_dataset("energy", (12,), "f8", chunks=(12,), compression=9)
        node.id.write_direct_chunk((0,), b"short", filter_mask=1)


@refused("keeps different values in the same bytes")
def chunks_that_share_their_bytes(folder: Path) -> None:
    change(folder, "forces", lambda values: values, chunks=(64, 3))
    found: list[int] = []
    with h5py.File(folder / FILE) as file:
        file["forces"].id.chunk_iter(lambda chunk: found.append(chunk.byte_offset))
    content = (folder / FILE).read_bytes()
    first, second = (place.to_bytes(8, "little") for place in found[:2])
    assert content.count(second) == 1
    (folder / FILE).write_bytes(content.replace(second, first))
