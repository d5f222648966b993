"""What HDF5 can hold and a predictions file may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .registry import FILE, attribute, canary, change, refused


@refused("holds 'forces', an external link to another file")
def external_link(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file["forces"] = h5py.ExternalLink(str(canary(folder)), "forces")


@refused("holds 'forces', a soft link")
def soft_link(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file["forces"] = h5py.SoftLink("/energy")


@refused("has more than one name for the array 'ids'")
def hard_link_to_the_same_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["offsets"]
        file["offsets"] = file["ids"]


@refused("keeps the array 'energy' in another file (external storage)")
def external_storage(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        file.create_dataset("energy", (12,), "f8", external=[(str(canary(folder)), 0, 96)])


@refused("has the virtual array 'energy', which other files would fill")
def virtual_array(folder: Path) -> None:
    layout = h5py.VirtualLayout((12,), "f8")
    layout[:] = h5py.VirtualSource(str(canary(folder)), "energy", (12,))
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        file.create_virtual_dataset("energy", layout)


@refused("keeps the array 'energy' in its header")
def compact_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"energy", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((12,)), how)


@refused("holds 'forces', which is not an array")
def group_in_place_of_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_group("forces")


@refused("holds 'force': unknown array 'force'; did you mean 'forces'?")
def unknown_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["force"] = np.zeros(3)


@refused("holds more than 26 objects")
def thousands_of_arrays(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        for k in range(3000):
            file.create_group(f"array {k}")


@refused("has 'omega_m', which nothing is scored by beside 'energy'; leave it out")
def array_of_another_domain(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["omega_m"] = np.zeros(12)


@refused("has no 'forces', which predictions on atoms data need")
def no_forces(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]


@refused("has no array 'ids'")
def no_ids(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["ids"]


def of_type(kind: Any, words: str) -> None:
    """An attack by an array of a type that may hold more than numbers."""

    def attack(folder: Path) -> None:
        with h5py.File(folder / FILE, "r+") as file:
            del file["energy"]
            file.create_dataset("energy", (12,), kind)

    attack.__name__ = f"energy_of_{words.split()[0]}"
    refused(f"has the array 'energy' of type {words}; write float32 or float64")(attack)


of_type(h5py.vlen_dtype(np.dtype("f8")), "variable length (object)")
of_type(h5py.string_dtype(), "string")
of_type(h5py.ref_dtype, "reference")
of_type(np.dtype("V8"), "opaque")
of_type(np.dtype("c16"), "compound (such as complex)")
of_type(h5py.enum_dtype({"a": 1}), "enumeration")
of_type(np.dtype("i8"), "integer")
of_type(np.dtype(">f8"), "float of another kind")


@refused("has attributes on the array 'energy'")
def attribute_on_an_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["energy"].attrs["note"] = "x" * 60_000


@refused("has the attribute 'pickle': unknown attribute")
def unknown_attribute(folder: Path) -> None:
    attribute(folder, "pickle", "gASV")


@refused("has a text of more than 4096 characters in the attribute 'calculator'")
def long_attribute(folder: Path) -> None:
    attribute(folder, "calculator", "x" * 10_000)


@refused("of which its arrays use 0.")
def huge_attribute(folder: Path) -> None:
    attribute(folder, "calculator", "x" * 40 * 2**20)


@refused("has several values in the attribute 'split'")
def attribute_of_many_values(folder: Path) -> None:
    attribute(folder, "split", ["test", "test"])


@refused("has the attribute 'split' of type string; write a string of variable length")
def attribute_of_fixed_length(folder: Path) -> None:
    attribute(folder, "split", np.bytes_("test"))


@refused("gives '0' as its heaviest; write a number")
def no_heaviest_points(folder: Path) -> None:
    attribute(folder, "heaviest", "0")


@refused("behind the filter 32000")
def unknown_filter(folder: Path) -> None:
    change(folder, "energy", lambda values: values, compression="lzf", chunks=(12,))


@refused("behind deflate and deflate; use shuffle and deflate (gzip) once each")
def deflated_twice(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((12,))
        for _ in range(2):
            how.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_MANDATORY, (9,))
        node = h5py.h5d.create(file.id, b"energy", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((12,)), how)
        h5py.Dataset(node)[...] = 0.0
