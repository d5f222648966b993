"""What is wrong with an HDF5 file that anybody may have made; runs in a process of its own, which may hang or crash.

A predictions file may hold flat arrays of numbers under names that are known, and a few short attributes: no groups, no
links but hard ones, no types but integers and floats, nothing kept outside of the file or made up on reading, and no
filters but shuffle, deflate and Fletcher-32. Sizes are taken from metadata before an array is read; deflated chunks are
inflated here first, with a limit, since the HDF5 library sets none.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5o, h5s, h5t, h5z

from scisci.contracts.errors import UserError, unknown_name

MEMORY = 768 * 2**20
MOST_FAULTS = 20
MOST_CHUNK_BYTES = 16 * 2**20
MOST_CHUNKS = 2**16
ROWS_AT_ONCE = 2**16
MOST_TEXT = 4096
MOST_STRETCH = 100
MOST_DECLARED = 384 * 2**20
MOST_SAMPLES = 2**23
# Of any file: metadata, and what a few padded chunks of zeros inflate to.
SLACK = 2**20
SMALL = 16 * 2**20

_INTEGER, _FLOATS = (h5t.STD_I64LE,), (h5t.IEEE_F64LE, h5t.IEEE_F32LE)
PER_SAMPLE: dict[str, tuple[int, ...]] = {"energy": (), "stress": (3, 3), "omega_m": (), "sigma_8": (), "start": ()}
PER_POINT: dict[str, tuple[int, ...]] = {
    "forces": (3,),
    "positions": (3,),
    "velocities": (3,),
    "infilling": (),
    "mean": (),
    "quantiles": (9,),
}
_ARRAYS = {"ids": (), "offsets": (), **PER_SAMPLE, **PER_POINT}
_COUNTS = ("heaviest", "context", "horizon")
_ATTRIBUTES = {"format", "schema_version", "fingerprint", "split", *_COUNTS, "calculator", "align", "predictor"}
_FILTERS = {h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_DEFLATE: "deflate", h5z.FILTER_FLETCHER32: "fletcher32"}
# What h5py raises for a file that contradicts itself.
_LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError, SystemError)


def quoted(name: object) -> str:
    """A stranger's text as messages show it: short, and with anything that a terminal would obey escaped."""
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def faults(path: Path) -> list[str]:
    """All that is wrong with a file, a clause each."""
    try:
        with h5py.File(path, "r") as file:
            found = _faults(file, path)[:MOST_FAULTS]
            # Whatever reading does to the library, it does here first.
            for node in () if found else file.values():
                for start in range(0, len(node), ROWS_AT_ONCE):
                    node[start : start + ROWS_AT_ONCE]
            return found
    except MemoryError:
        return [f"asks for more than {MEMORY // 2**20} MiB of memory before anything is read; write it again"]
    except _LIBRARY_ERRORS:
        return ["is damaged, or no HDF5 file that can be read; write it again"]


def _faults(file: h5py.File, path: Path) -> list[str]:
    """All that is wrong with an open file, a clause each."""
    names, faults = _names(file)
    ranges: list[tuple[int, int]] = []
    declared = 0
    with open(path, "rb") as content:
        size = os.fstat(content.fileno()).st_size
        for name in names:
            try:
                array = h5d.open(file.id, name.encode())
                _check_kind(array, name)
                declared += math.prod(array.shape) * array.dtype.itemsize
                ranges += _stored(array, name, content.fileno(), size)
            except UserError as error:
                faults.append(str(error))
    if faults:
        return faults
    ranges.sort()
    if any(first[1] > second[0] for first, second in itertools.pairwise(ranges)):
        return ["keeps different values in the same bytes; write it again"]
    if size - (kept := sum(stop - start for start, stop in ranges)) > SLACK + kept:
        return [f"has {size / 2**20:.1f} MiB, of which its arrays use {kept / 2**20:.1f}; leave everything else out"]
    if declared > min(SMALL + MOST_STRETCH * size, MOST_DECLARED):
        grown = f"from {size / 2**20:.1f} to {declared / 2**20:,.0f} MiB when read"
        return [f"would grow {grown}; write it uncompressed or predict less"]
    return [*_attribute_faults(file)]


def _names(file: h5py.File) -> tuple[list[str], list[str]]:
    """The arrays of a file by name, and what is wrong with what else it links to."""
    names: list[str] = []
    faults: list[str] = []

    def visit(raw: bytes, link: Any) -> bool | None:
        shown = quoted(raw)
        if len(names) + len(faults) > 2 * len(_ARRAYS):
            faults[:] = [f"holds more than {2 * len(_ARRAYS)} objects; leave out all but its arrays"]
            return True
        if link.type == h5py.h5l.TYPE_EXTERNAL:
            faults.append(f"holds {shown}, an external link to another file; put the array itself there")
        elif link.type == h5py.h5l.TYPE_SOFT:
            faults.append(f"holds {shown}, a soft link; put the array itself there")
        elif link.type != h5py.h5l.TYPE_HARD:
            faults.append(f"holds {shown}, a link of a kind of its own; put the array itself there")
        elif (name := raw.decode(errors="replace")) not in _ARRAYS:
            faults.append(f"holds {shown}: {unknown_name('array', quoted(raw)[1:-1], _ARRAYS)}")
        elif (found := h5o.get_info(file.id, raw)).type != h5o.TYPE_DATASET:
            faults.append(f"holds {shown}, which is not an array; put an array there")
        elif found.rc != 1:
            faults.append(f"has more than one name for the array {shown}; write each by itself")
        elif found.num_attrs:
            faults.append(f"has attributes on the array {shown}; leave them out")
        else:
            names.append(name)
        return None

    file.id.links.iterate(visit, info=True)
    absent = [name for name in ("ids", "offsets") if not file.id.links.exists(name.encode())]
    faults += [f"has no array {name!r}, as every predictions file has; write it again" for name in absent]
    return names, faults


def _check_kind(array: h5d.DatasetID, name: str) -> None:
    """`UserError` unless an array is kept in the file itself and has a type and a shape as is known of it."""
    how = array.get_create_plist()
    if how.get_layout() == h5d.VIRTUAL:
        raise UserError(f"has the virtual array {name!r}, which other files would fill; put its values there")
    if how.get_layout() == h5d.COMPACT:
        raise UserError(f"keeps the array {name!r} in its header; write it in chunks")
    if how.get_external_count():
        raise UserError(f"keeps the array {name!r} in another file (external storage); put its values there")
    wanted = _INTEGER if name in ("ids", "offsets") else _FLOATS
    if not any(array.get_type() == kind for kind in wanted):
        kinds = "int64" if wanted is _INTEGER else "float32 or float64"
        raise UserError(f"has the array {name!r} of type {_type_name(array.get_type())}; write {kinds}, little-endian")
    space, row = array.get_space(), _ARRAYS[name]
    if space.get_simple_extent_type() != h5s.SIMPLE or space.get_simple_extent_ndims() != 1 + len(row):
        raise UserError(f"has the array {name!r} of another rank than {1 + len(row)}; write it again")
    if (shape := array.shape)[1:] != row:
        raise UserError(f"has the array {name!r} of shape {list(shape)}; write rows of shape {list(row)}")
    if wanted is _INTEGER and shape[0] > MOST_SAMPLES:
        raise UserError(f"has {shape[0]:,} {name}; predict up to {MOST_SAMPLES:,} samples")


def _type_name(kind: h5t.TypeID) -> str:
    names = {h5t.INTEGER: "integer", h5t.FLOAT: "float of another kind", h5t.STRING: "string"}
    names |= {h5t.OPAQUE: "opaque", h5t.COMPOUND: "compound (such as complex)", h5t.REFERENCE: "reference"}
    names |= {h5t.ENUM: "enumeration", h5t.VLEN: "variable length (object)", h5t.ARRAY: "array", h5t.BITFIELD: "bits"}
    return names.get(kind.get_class(), "unknown")


def _stored(array: h5d.DatasetID, name: str, content: int, size: int) -> list[tuple[int, int]]:
    """The ranges of bytes of the file that hold an array; `UserError` unless they hold all of it and no more."""
    shape, width = array.shape, array.dtype.itemsize
    how = array.get_create_plist()
    if how.get_layout() == h5d.CONTIGUOUS:
        nbytes, start = math.prod(shape) * width, array.get_offset()
        if nbytes == 0:
            return []
        if start is None or start + nbytes > size or array.get_storage_size() != nbytes:
            raise UserError(f"says that {name!r} has {nbytes:,} bytes, which it does not hold; write all its values")
        return [(start, start + nbytes)]
    chunk, filters = how.get_chunk(), _filters(array, name)
    nbytes = math.prod(chunk) * width
    grid = [-(-extent // step) for extent, step in zip(shape, chunk, strict=True)]
    if nbytes > MOST_CHUNK_BYTES or math.prod(grid) > MOST_CHUNKS:
        raise UserError(
            f"has the array {name!r} in {math.prod(grid):,} chunks of {nbytes / 2**20:,.1f} MiB; write up to"
            f" {MOST_CHUNKS:,} of up to {MOST_CHUNK_BYTES // 2**20} MiB"
        )
    found: list[Any] = []
    places = set()

    def visit(one: h5d.StoreInfo) -> bool | None:
        found.append(one)
        places.add(one.chunk_offset)
        return True if len(found) > math.prod(grid) else None

    array.chunk_iter(visit)
    inside = all(
        at % step == 0 and at < extent for place in places for at, step, extent in zip(place, chunk, shape, strict=True)
    )
    if len(found) != math.prod(grid) or len(places) != len(found) or not inside:
        raise UserError(
            f"says that {name!r} has {math.prod(grid):,} chunks but holds {len(found):,} (the rest would be made up on"
            " reading); write all its values"
        )
    for one in found:
        if one.filter_mask or one.byte_offset is None or one.byte_offset + one.size > size:
            raise UserError(f"has a chunk of {name!r} that is not as the array says; write it again")
        # What does not deflate becomes a little longer.
        most = min(one.size, nbytes + nbytes // 1000 + 1024)
        _check_chunk(os.pread(content, most, one.byte_offset), nbytes, filters, name)
    return [(one.byte_offset, one.byte_offset + one.size) for one in found]


def _filters(array: h5d.DatasetID, name: str) -> list[str]:
    """The filters of a chunked array in order; `UserError` for any but known ones, each once."""
    how = array.get_create_plist()
    codes = [how.get_filter(k)[0] for k in range(how.get_nfilters())]
    for code in codes:
        if code not in _FILTERS:
            raise UserError(f"has the array {name!r} behind the filter {code}; use shuffle, deflate (gzip) or none")
    names = [_FILTERS[code] for code in codes]
    if names != [known for known in _FILTERS.values() if known in names]:
        raise UserError(
            f"has the array {name!r} behind {' and '.join(names)}; use shuffle and deflate (gzip) once each"
        )
    return names


def _check_chunk(stored: bytes, nbytes: int, filters: list[str], name: str) -> None:
    """`UserError` unless a chunk's bytes in the file become exactly `nbytes`."""
    checksum = 4 if "fletcher32" in filters else 0
    length = len(stored) - checksum
    if "deflate" in filters:
        inflating = zlib.decompressobj()
        try:
            length = len(inflating.decompress(stored[:length], nbytes + 1))
        except zlib.error as error:
            raise UserError(f"has a damaged chunk of {name!r}; write it again") from error
        if length > nbytes:
            raise UserError(
                f"has a chunk of {name!r} that inflates to more than its {nbytes:,} bytes (a decompression bomb);"
                " write it uncompressed"
            )
        length = length if inflating.eof else -1
    if length != nbytes:
        raise UserError(f"has a chunk of {name!r} that is not of {nbytes:,} bytes; write it again")


def _attribute_faults(file: h5py.File) -> Iterator[str]:
    """What is wrong with the attributes of a file, which are short texts and a version."""
    count = h5a.get_num_attrs(file.id)
    if count > len(_ATTRIBUTES):
        yield f"has {count} attributes, more than are known; leave out all but {', '.join(sorted(_ATTRIBUTES))}"
        return
    for k in range(count):
        attribute = h5a.open(file.id, index=k)
        shown = quoted(attribute.name)
        name = attribute.name.decode(errors="replace")
        kind = attribute.get_type()
        number = name == "schema_version"
        if name not in _ATTRIBUTES:
            yield f"has the attribute {shown}: {unknown_name('attribute', shown[1:-1], _ATTRIBUTES)}"
        elif attribute.get_space().get_simple_extent_type() != h5s.SCALAR:
            yield f"has several values in the attribute {shown}; write one"
        elif kind != h5t.STD_I64LE if number else not isinstance(kind, h5t.TypeStringID) or not kind.is_variable_str():
            wanted = "int64" if number else "a string of variable length"
            yield f"has the attribute {shown} of type {_type_name(kind)}; write {wanted}"
        elif name in _COUNTS and re.fullmatch("[1-9][0-9]{0,8}", file.attrs[name]) is None:
            yield f"gives {quoted(file.attrs[name])} as its {name}; write a number from 1 to 999999999"
        elif not number and len(file.attrs[name]) > MOST_TEXT:
            yield f"has a text of more than {MOST_TEXT} characters in the attribute {shown}; shorten it"


def limit_memory() -> None:
    """Let this process have `MEMORY` bytes more than it has now, where the system can hold it to that."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Answer each line on standard input, a path as JSON, with a line of `faults`, or of the `bug` that was met."""
    limit_memory()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"faults": faults(Path(json.loads(line)))}
        except Exception:
            answer = {"bug": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
