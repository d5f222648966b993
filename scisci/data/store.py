"""The packed store: samples of one domain in one or more HDF5 shards, read through memory maps.

A shard holds flat arrays (`items/<field>`: a row per atom or point; `samples/<field>`: a row per sample;
`metadata/<column>`), CSR `offsets`, and a `group` per sample. The first shard also holds `groups` (names),
`splits/<name>` (indices over all shards; the attribute `severity_column` names the metadata column that grades its
shift sample by sample) and `references/<name>`. Of data sets that were combined, the column `metadata/dataset` numbers
each sample's and has their `names` as an attribute; what is fitted to labels, such as `references/energy`, has a row
for each. Chunks carry Fletcher-32 checksums, so altered bytes are found when they are read; the store's fingerprint is
the sha256 over all content.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.mapped import MappedFile, MappedRows
from scisci.data.ragged import Ragged, offsets_of, ragged_positions
from scisci.data.samples import layout

SCHEMA_VERSION = 1
VERIFY_ON_OPEN_BYTES = 64 * 2**20
ROWS_AT_ONCE = 2**20
BYTES_AT_ONCE = 2**20
KEEP_IN_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Split:
    """A named list of sample indices in a fixed order; the first D of `train` are the D-sized training subset."""

    name: str
    size: int
    shift: str
    severity: float | None
    severity_column: str | None
    disjoint: bool
    _store: Store

    def __len__(self) -> int:
        return self.size

    def indices(self, stop: int | None = None) -> np.ndarray:
        """The first `stop` indices of the split (all of them by default)."""
        return self._store.h5(0)[f"splits/{self.name}"][: self.size if stop is None else stop]

    def severities(self, stop: int | None = None) -> np.ndarray:
        """The severity of the shift of each of the first `stop` samples, in the order of `indices`."""
        if self.severity_column is None:
            raise UserError(f"split {self.name!r} has no severity per sample; make its splits with 'scisci data split'")
        return self._store.metadata(self.severity_column)[self.indices(stop)]


def dataset_names(shard: h5py.File) -> tuple[str, ...]:
    """Names of the data sets whose samples a shard holds, by number; none unless they were combined."""
    node = shard.get("metadata/dataset")
    return () if node is None else tuple(node.attrs.get("names", ()))


def fingerprint(shards: list[h5py.File]) -> str:
    """sha256 over the content of every data set and attribute of the shards, in the order of their names."""
    sha = hashlib.sha256()
    for shard in shards:
        sha.update(f"{shard.attrs['domain']}:{shard.attrs['schema_version']}".encode())
        names: list[str] = []
        shard.visit(names.append)
        for name in sorted(names):
            node = shard[name]
            sha.update(f"{name}:{sorted((key, str(value)) for key, value in node.attrs.items())}".encode())
            if isinstance(node, h5py.Dataset):
                sha.update(f"{node.shape}:{node.dtype}".encode())
                for content in _content(node):
                    sha.update(content)
    return sha.hexdigest()


def _content(node: h5py.Dataset) -> Iterator[bytes | memoryview]:
    """The bytes of a data set, a little at a time; texts are joined by zero bytes within every `ROWS_AT_ONCE`."""
    texts = node.dtype == object
    step = 2**14 if texts else max(1, BYTES_AT_ONCE // (node.dtype.itemsize * math.prod(node.shape[1:])))
    for start in range(0, len(node), step):
        rows = node[start : start + step]
        if texts and start % ROWS_AT_ONCE:
            yield b"\0"
        yield b"\0".join(rows) if texts else rows.data


@dataclass(frozen=True)
class _Shard:
    """An open shard with its data sets, looked up by name only once."""

    file: h5py.File
    offsets: MappedRows
    items: dict[str, MappedRows]
    samples: dict[str, MappedRows]

    @classmethod
    def open(cls, path: Path) -> _Shard:
        file = h5py.File(path, "r")
        if file.attrs.get("format") != "scisci-store":
            raise UserError(f"{path} is HDF5 but not a scisci store; import it with 'scisci data import'")
        if file.attrs["schema_version"] > SCHEMA_VERSION:
            raise UserError(f"{path} was written by a newer scisci; update with 'pip install -U scisci'")
        content = MappedFile(path)
        items, samples = (
            {name: MappedRows(node, content) for name, node in file[per].items()} for per in ("items", "samples")
        )
        if dataset_names(file):
            samples["dataset"] = MappedRows(file["metadata/dataset"], content)
        return cls(file, MappedRows(file["offsets"], content), items, samples)

    def take(self, indices: np.ndarray) -> Ragged:
        starts = self.offsets.take(indices)
        lengths = self.offsets.take(indices + 1) - starts
        rows = ragged_positions(starts, lengths)
        return Ragged(
            offsets_of(lengths),
            {name: column.take(rows) for name, column in self.items.items()},
            {name: column.take(indices) for name, column in self.samples.items()},
        )


class Store:
    """A packed store opened for reading.

    `path` is an HDF5 file or a folder of `shard-*.h5`. Files are opened once per process (so a loader worker
    has its own handles) and never read whole. Raises `UserError` for a file that is damaged, altered or not a store.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._paths = sorted(self.path.glob("shard-*.h5")) if self.path.is_dir() else [self.path]
        if not self._paths or not all(p.is_file() for p in self._paths):
            raise UserError(f"no store at {self.path}; write one with 'scisci data import'")
        self._shards: dict[int, list[_Shard]] = {}
        self._numbers: np.ndarray | None = None
        with self._readable():
            first = self.h5(0)
            self.domain: str = first.attrs["domain"]
            self.fingerprint: str = first.attrs["fingerprint"]
            counts = [self.h5(i).attrs["samples"] for i in range(len(self._paths))]
            self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if sum(p.stat().st_size for p in self._paths) <= VERIFY_ON_OPEN_BYTES:
            self.verify()

    def _readable(self) -> _Readable:
        return _Readable(self.path)

    def _shard(self, number: int) -> _Shard:
        """A shard, opened once per process."""
        shards = self._shards.get(os.getpid())
        if shards is None:
            with self._readable():
                shards = [_Shard.open(path) for path in self._paths]
            self._shards = {os.getpid(): shards}
        return shards[number]

    def h5(self, shard: int) -> h5py.File:
        """The open file of a shard, in this process."""
        return self._shard(shard).file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shards(self) -> list[slice]:
        """Which samples each shard holds."""
        return [slice(int(a), int(b)) for a, b in pairwise(self._starts)]

    @property
    def name(self) -> str:
        """What the data set is called: its file or folder, or the folder that a file or folder `data` is in."""
        own = self.path.stem if self.path.suffix == ".h5" else self.path.name
        return self.path.parent.name if own == "data" else own

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets that were combined in this one; none if it is a single one."""
        return dataset_names(self.h5(0))

    def numbered(self, names: Sequence[str]) -> Store:
        """The same store, with its samples' data sets numbered as in `names`, those that a model was trained on.

        A single data set is known by its `name`. Without `names` the store is as it was. `UserError` for another set.
        """
        if not names:
            return self
        own = self.datasets or (self.name,)
        if strange := [name for name in own if name not in names]:
            raise UserError(
                f"the model was trained on the data sets {', '.join(names)}, and {self.path} is {strange[0]!r}; say"
                f" which of them it is with 'scisci data combine NAME={self.path} --out STORE'"
            )
        other = copy(self)
        other._numbers = np.array([names.index(name) for name in own])
        return other

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the sample fields this store holds."""
        first = self.h5(0)
        return tuple(f.name for f in layout(self.domain) if f"{f.per}s/{f.name}" in first)

    @cached_property
    def groups(self) -> list[str]:
        """Names of the groups (molecules, simulations, series); samples refer to them by position."""
        return list(self.h5(0)["groups"].asstr()[...])

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """All splits by name."""
        found = {}
        for name, node in self.h5(0)["splits"].items():
            severity = node.attrs.get("severity")
            found[name] = Split(
                name,
                len(node),
                node.attrs["shift"],
                None if severity is None else float(severity),
                node.attrs.get("severity_column"),
                bool(node.attrs["disjoint"]),
                self,
            )
        return found

    def split(self, name: str) -> Split:
        """One split; an unknown name is a `UserError` with the closest names."""
        if name not in self.splits:
            raise unknown_name("split", name, self.splits)
        return self.splits[name]

    @cached_property
    def references(self) -> dict[str, np.ndarray]:
        """Arrays stored beside the samples, such as `energy` [119]: eV per element, NaN where it does not occur.

        Of data sets that were combined, [sets, 119].
        """
        return {name: node[...] for name, node in self.h5(0).get("references", {}).items()}

    def metadata(self, column: str) -> np.ndarray:
        """A free metadata column over all samples."""
        if column not in self.h5(0)["metadata"]:
            raise unknown_name("metadata column", column, self.h5(0)["metadata"])
        nodes = [self.h5(i)[f"metadata/{column}"] for i in range(len(self._paths))]
        return np.concatenate([(n.asstr() if h5py.check_string_dtype(n.dtype) else n)[...] for n in nodes])

    def sample_column(self, name: str) -> np.ndarray:
        """One per-sample field, such as `group` or `energy`, over all samples."""
        return np.concatenate([self.h5(i)[f"samples/{name}"][...] for i in range(len(self._paths))])

    def take(self, indices: np.ndarray) -> Ragged:
        """Read the samples at `indices`, in that order; repeats are allowed."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"sample {indices.min()}..{indices.max()} outside 0..{len(self) - 1}")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        found = {number: np.flatnonzero(shard == number) for number in np.unique(shard).tolist() or [0]}
        with self._readable():
            parts = [self._shard(number).take(indices[at] - self._starts[number]) for number, at in found.items()]
        one = parts[0] if len(parts) == 1 else _concatenate(parts).take(np.argsort(np.concatenate([*found.values()])))
        if self._numbers is not None:
            own = one.samples.get("dataset", np.zeros(len(one), dtype=np.int64))
            one.samples["dataset"] = self._numbers[own]
        return one

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """[n] rows of the samples at `indices`, without reading any of them."""
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        found = np.zeros(len(indices), dtype=np.int64)
        with self._readable():
            for number in np.unique(shard).tolist():
                at = np.flatnonzero(shard == number)
                offsets, local = self._shard(number).offsets, indices[at] - self._starts[number]
                found[at] = offsets.take(local + 1) - offsets.take(local)
        return found

    def kept(self, indices: np.ndarray) -> tuple[Store | Ragged, np.ndarray]:
        """Where to take the samples at `indices` from time and again, and their places in it.

        That is memory when they are few enough, and the store otherwise.
        """
        bytes_per_sample = self.take(indices[:256]).nbytes / max(1, len(indices[:256]))
        if bytes_per_sample * len(indices) <= KEEP_IN_MEMORY_BYTES:
            return self.take(indices), np.arange(len(indices))
        return self, indices

    def verify(self) -> None:
        """Compare the content with the fingerprint; `UserError` if they differ."""
        with self._readable():
            actual = fingerprint([self.h5(i) for i in range(len(self._paths))])
        if actual != self.fingerprint:
            raise UserError(f"{self.path} was altered after it was written (its fingerprint differs); get it again")


class _Readable:
    """Turn what HDF5 says of a damaged file into one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, RuntimeError, KeyError)) and not isinstance(error, FileNotFoundError):
            raise UserError(
                f"{self.path} is not a readable store (truncated, damaged or another format); get it again"
            ) from error


def _concatenate(parts: list[Ragged]) -> Ragged:
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(
        offsets_of(lengths),
        {name: np.concatenate([p.items[name] for p in parts]) for name in parts[0].items},
        {name: np.concatenate([p.samples[name] for p in parts]) for name in parts[0].samples},
    )
