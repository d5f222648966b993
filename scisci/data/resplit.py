"""The same samples with other splits: a new store beside the old one, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.references import fit_references
from scisci.data.splits import Plan
from scisci.data.store import Store, fingerprint
from scisci.data.writer import new_store, shard_path, write_split

NEEDED = ("train", "val", "test")


def check_target(store: Store, path: Path) -> None:
    """`UserError` unless a copy of `store` can be put at `path`."""
    if path.exists():
        raise UserError(f"{path} exists already; remove it first or choose another name")
    if path.suffix == ".h5" and len(store.shards) > 1:
        raise UserError(f"{store.path} has {len(store.shards)} shards, which need a folder; leave .h5 off {path}")


def resplit(store: Store, path: Path, plan: Plan) -> list[int]:
    """Copy the shards of `store` to `path` with the splits and metadata columns of `plan` instead of its own.

    `path` ending in `.h5` becomes one file, anything else a folder. The old content is checked against its fingerprint;
    per-element reference energies are fitted to the new `train`. A split counts as disjoint if it shares no group with
    `train`. Returns the atomic numbers that occur outside `train` alone. `UserError` if `path` exists, or `train`,
    `val` or `test` is missing; then nothing is written.
    """
    if absent := [name for name in NEEDED if name not in plan.parts]:
        raise UserError(
            f"the splits lack {absent[0]!r}, which training needs; draw it with --split {absent[0]}=FRACTION"
        )
    check_target(store, path)
    store.verify()
    with new_store(path) as folder:
        return _write(store, folder, plan)


def _write(store: Store, folder: Path, plan: Plan) -> list[int]:
    with ExitStack() as stack:
        shards: list[h5py.File] = []
        for number, held in enumerate(store.shards):
            shards.append(stack.enter_context(h5py.File(shard_path(folder, number), "w")))
            columns = {name: values[held] for name, values in plan.columns.items()}
            _copy(store.h5(number), shards[-1], columns, _outdated(store))
        first, strange = shards[0], list[int]()
        train = plan.parts["train"].indices
        if "energy" in store.references:
            del first["references/energy"]
            first["references/energy"], strange = fit_references(shards, train)
        groups, trained = store.sample_column("group"), np.zeros(len(store.groups), dtype=bool)
        trained[groups[train]] = True
        for name, part in plan.parts.items():
            write_split(
                first,
                name,
                part.indices,
                shift=part.shift,
                severity=part.severity,
                severity_column=part.severity_column,
                disjoint=not trained[groups[part.indices]].any(),
            )
        first.attrs["fingerprint"] = fingerprint(shards)
    return strange


def _outdated(store: Store) -> set[str]:
    """Metadata columns that were measured for the old splits."""
    columns = {split.severity_column or "" for split in store.splits.values()}
    return {name for name in columns if name.startswith("severity_")}


def _copy(source: h5py.File, target: h5py.File, columns: Mapping[str, np.ndarray], outdated: set[str]) -> None:
    target.attrs.update(source.attrs)
    for name in source:
        if name != "splits":
            source.copy(name, target)
    metadata = target.require_group("metadata")
    for name in (outdated | columns.keys()) & metadata.keys():
        del metadata[name]
    for name, values in columns.items():
        metadata.create_dataset(name, data=values, chunks=True, fletcher32=True)
