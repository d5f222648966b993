"""Writing a packed store: samples stream in, shards come out; nothing is there until all of it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating
from scisci.data.numbering import Numbering
from scisci.data.samples import Field, Sample, SeriesSample, layout, problem, size
from scisci.data.store import SCHEMA_VERSION, fingerprint

# Samples are written out once so many are waiting, or so many of their atoms or points.
BUFFER = 1024
BUFFERED_ITEMS = 2**17


class StoreWriter:
    """Append samples, then name splits; leaving the `with` block puts the finished store in place.

    `path` ending in `.h5` becomes one file, anything else a folder of shards with at most `shard_samples` samples
    each. All samples of a store carry the same fields. `UserError` for a sample that is not fit, with its index;
    `checked` says that the samples come from a source that found them fit. Memory: a few bytes per group, the
    samples of one buffer, and the splits.
    """

    def __init__(self, path: Path | str, domain: str, shard_samples: int = 1_000_000, checked: bool = False) -> None:
        self.path = Path(path)
        self.domain = domain
        self.layout = layout(domain)
        self._single = self.path.suffix == ".h5"
        self._shard_samples = 2**62 if self._single else shard_samples
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._shards: list[h5py.File] = []
        self._fields: list[Field] | None = None
        self._metadata: list[str] = []
        self._groups = Numbering()
        self._new_groups: list[str] = []
        self._pending: list[tuple[Sample, int, Mapping[str, Any]]] = []
        self._pending_items = 0
        self._count = 0
        self._checked = checked
        self._splits: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        self._references: dict[str, np.ndarray] = {}

    def __enter__(self) -> StoreWriter:
        self._refuse_existing()
        shutil.rmtree(self._temporary, ignore_errors=True)
        with creating(self.path):
            self._temporary.mkdir(parents=True)
        return self

    def _refuse_existing(self) -> None:
        if self.path.exists():
            raise UserError(f"{self.path} exists already; remove it first or choose another name")

    def append(self, sample: Sample, group: str, **metadata: Any) -> int:
        """Add one sample; returns its index. `metadata` columns are numbers or short strings.

        Of a series, the frequency becomes the metadata column `freq`.
        """
        index = len(self)
        if isinstance(sample, SeriesSample):
            metadata = {"freq": sample.freq, **metadata}
        if not self._checked and (wrong := problem(sample)):
            raise UserError(f"sample {index} cannot be stored: {wrong}; correct or leave out that frame")
        present = [f for f in self.layout if getattr(sample, f.name) is not None]
        if self._fields is None:
            self._fields, self._metadata = present, sorted(metadata)
        if present != self._fields or sorted(metadata) != self._metadata:
            names = sorted({f.name for f in present} ^ {f.name for f in self._fields})
            raise UserError(
                f"sample {index} differs from the ones before it in having {', '.join(names) or 'other metadata'};"
                " a store needs the same fields in all samples"
            )
        known, number = len(self._groups), self._groups(group)
        if number == known:
            self._new_groups.append(group)
        self._pending.append((sample, number, metadata))
        self._pending_items += size(sample)
        if len(self._pending) == BUFFER or self._pending_items >= BUFFERED_ITEMS:
            self._flush()
        return index

    def __len__(self) -> int:
        return self._count + len(self._pending)

    def written(self) -> list[h5py.File]:
        """The shards with all samples so far, to be read only."""
        self._flush()
        return self._shards

    def split(
        self,
        name: str,
        indices: np.ndarray,
        shift: str,
        severity: float | None = None,
        disjoint: bool = False,
        severity_column: str | None = None,
    ) -> None:
        """Name a split. `shift` says how it differs from `train`; `disjoint`: shares no group with `train`.

        `severity_column` names the metadata column that grades the shift sample by sample.
        """
        attributes: dict[str, Any] = {"shift": shift, "severity": severity, "disjoint": disjoint}
        attributes["severity_column"] = severity_column
        self._splits[name] = (np.asarray(indices, dtype=np.int64), attributes)

    def reference(self, name: str, values: np.ndarray) -> None:
        """Store an array beside the samples, such as per-element energies."""
        self._references[name] = values

    def _flush(self) -> None:
        while self._pending:
            room = self._shard_samples - (self._shards[-1].attrs["samples"] if self._shards else self._shard_samples)
            if room <= 0:
                self._shards.append(self._new_shard())
                continue
            take, self._pending = self._pending[:room], self._pending[room:]
            self._write(self._shards[-1], take)
            self._count += len(take)
        self._pending_items = 0
        if self._new_groups:
            extend(self._shards[0]["groups"], np.array(self._new_groups, dtype=object))
            self._new_groups.clear()

    def _new_shard(self) -> h5py.File:
        file = h5py.File(shard_path(self._temporary, len(self._shards)), "w", track_order=False)
        file.attrs.update(format="scisci-store", schema_version=SCHEMA_VERSION, domain=self.domain, samples=0)
        file.create_dataset("offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(8192,))
        for field in self._fields or []:
            node = growing(file, f"{field.per}s/{field.name}", field.shape, field.dtype)
            node.attrs["unit"] = field.unit
        growing(file, "samples/group", (), "i4")
        file.require_group("metadata")
        if not self._shards:
            growing(file, "groups", (), h5py.string_dtype())
        return file

    def _write(self, file: h5py.File, batch: list[tuple[Sample, int, Mapping[str, Any]]]) -> None:
        lengths = np.array([size(sample) for sample, _, _ in batch])
        extend(file["offsets"], file["offsets"][-1] + np.cumsum(lengths))
        for field in self._fields or []:
            values = [np.asarray(getattr(sample, field.name), dtype=field.dtype) for sample, _, _ in batch]
            extend(file[f"{field.per}s/{field.name}"], (np.concatenate if field.per == "item" else np.stack)(values))
        extend(file["samples/group"], np.array([group for _, group, _ in batch], dtype="i4"))
        for name in self._metadata:
            values = [metadata[name] for _, _, metadata in batch]
            dtype = h5py.string_dtype() if isinstance(values[0], str) else np.asarray(values[0]).dtype
            node = file.get(f"metadata/{name}")
            extend(growing(file, f"metadata/{name}", (), dtype) if node is None else node, np.array(values, dtype))
        file.attrs["samples"] += len(batch)

    def _finish(self) -> None:
        self._flush()
        if not self._shards:
            raise UserError(f"nothing was written to {self.path}: the source has no samples")
        first = self._shards[0]
        first.require_group("splits")
        for name, (indices, attributes) in self._splits.items():
            if len(indices) and (indices.min() < 0 or indices.max() >= self._count):
                raise UserError(f"split {name!r} names samples that the store does not have")
            write_split(first, name, indices, **attributes)
        for name, values in self._references.items():
            first.create_dataset(f"references/{name}", data=values)
        first.attrs["fingerprint"] = fingerprint(self._shards)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish()
            for shard in self._shards:
                shard.close()
            if error is None:
                source = shard_path(self._temporary, 0) if self._single else self._temporary
                self._refuse_existing()
                with creating(self.path):
                    source.rename(self.path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


@contextmanager
def new_store(path: Path) -> Iterator[Path]:
    """A folder for the shards of a store; it becomes `path`, one file if that ends in `.h5`, unless something fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with creating(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with creating(path):
            (shard_path(temporary, 0) if path.suffix == ".h5" else temporary).rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def shard_path(folder: Path, number: int) -> Path:
    """Where a store in a folder has its shard of this number."""
    return folder / f"shard-{number:05d}.h5"


def write_split(first_shard: h5py.File, name: str, indices: np.ndarray, **attributes: Any) -> None:
    """Write one split; of its attributes (`shift`, `severity`, ...) those that are `None` are left out."""
    node = first_shard.create_dataset(f"splits/{name}", data=indices, fletcher32=True)
    node.attrs.update({key: value for key, value in attributes.items() if value is not None})


def growing(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """A new data set of a shard, without rows as yet, in chunks that a store can be read by."""
    checked = h5py.check_string_dtype(np.dtype(dtype)) is None
    rows = max(64, 8192 // max(1, int(np.prod(shape)))) if checked else 1024
    return file.create_dataset(
        name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), fletcher32=checked
    )


def extend(node: h5py.Dataset, values: np.ndarray) -> None:
    """Add rows to a data set that grows."""
    start = len(node)
    node.resize(start + len(values), axis=0)
    node[start:] = values
