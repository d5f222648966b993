"""Several data sets in one store, so that one model is trained on all of them at once, each with labels of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.ragged import offsets_of
from scisci.data.samples import layout
from scisci.data.store import ROWS_AT_ONCE, Store, fingerprint
from scisci.data.writer import extend, growing, new_store, shard_path, write_split

FIELDS = {field.name: field for field in layout("atoms")}
# What isolated systems, which have neither, get beside periodic ones: no vectors, in no direction.
PERIODIC = ("cell", "pbc")


def combine(stores: Mapping[str, Store], path: Path, without: Collection[str] = (), seed: int = 0) -> None:
    """Write the samples of `stores`, by the name that each is to have, to a new store `path`: a folder of shards.

    The metadata column `dataset` numbers the stores in their order. Groups become `<name>/<group>`, splits of the same
    name are joined (`interleaved`), and reference energies are a row per store, its own. Fields and metadata columns
    `without` are left out; isolated systems get an empty cell, and metadata that a store lacks is NaN or "". What is
    copied is first checked against its fingerprint. Memory: the splits, and a column of one shard. `UserError` if the
    stores cannot be combined or `path` exists; then nothing is written.
    """
    if path.exists():
        raise UserError(f"{path} exists already; remove it first or choose another name")
    if path.suffix == ".h5":
        raise UserError(f"a combined store is a folder of shards; leave .h5 off {path}")
    for name, store in stores.items():
        _check(name, store)
    columns = _columns(stores, without)
    _check_without(stores, columns, without)
    _check_fields(stores, without)
    for store in stores.values():
        store.verify()
    periodic = {name for store in stores.values() for name in store.fields if name in PERIODIC} - {*without}
    columns = {name: text for name, text in columns.items() if name not in without}
    with new_store(path) as folder, ExitStack() as stack:
        shards, groups = list[h5py.File](), 0
        for number, store in enumerate(stores.values()):
            for k in range(len(store.shards)):
                shards.append(stack.enter_context(h5py.File(shard_path(folder, len(shards)), "w")))
                _copy(store.h5(k), shards[-1], without, groups)
                _fill(shards[-1], periodic, columns)
                _constant(shards[-1], "metadata/dataset", "i4", number)
                shards[-1]["metadata/dataset"].attrs["names"] = list(stores)
            groups += len(store.groups)
        _describe(stores, shards[0], without, seed)
        shards[0].attrs["fingerprint"] = fingerprint(shards)


def interleaved(parts: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """All indices of several lists in one, of which each is in its own order and evenly spread.

    Entry i of a list of n is at a place drawn from [i / n, (i + 1) / n), and all are put in the order of their places.
    So the first D hold of every list its share of D, to within the number of lists, and of each its own first ones.
    """
    places = [(np.arange(len(part)) + rng.random(len(part))) / len(part) for part in parts]
    return np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")]


def _check(name: str, store: Store) -> None:
    if not name or "/" in name:
        raise UserError(f"{name!r} cannot be the name of a data set in a combined one; write NAME={store.path}")
    if store.domain != "atoms":
        raise UserError(f"{store.path} holds samples of the domain {store.domain!r}, and only atoms are combined")
    if store.datasets:
        raise UserError(f"{store.path} is combined already; combine those it was made of: {', '.join(store.datasets)}")
    if "train" not in store.splits:
        raise UserError(f"{store.path} has no split train, which training needs; draw it with 'scisci data split'")


def _check_without(stores: Mapping[str, Store], columns: Mapping[str, bool], without: Collection[str]) -> None:
    known = {name for store in stores.values() for name in store.fields} | columns.keys()
    for name in without:
        if name not in known:
            raise unknown_name("field or metadata column", name, known)
        if name in PERIODIC or (name in FIELDS and FIELDS[name].required):
            raise UserError(f"no atoms can be stored without {name}; leave out --without {name}")
    if "dataset" in columns and "dataset" not in without:
        raise UserError(
            "a metadata column is called dataset, as is the one that tells data sets apart; give --without dataset"
        )


def _check_fields(stores: Mapping[str, Store], without: Collection[str]) -> None:
    wanted = {name: store for store in stores.values() for name in store.fields if name not in (*PERIODIC, *without)}
    for store in stores.values():
        if absent := sorted(wanted.keys() - store.fields):
            raise UserError(
                f"{store.path} has no {absent[0]}, which {wanted[absent[0]].path} has; leave it out of all with"
                f" --without {absent[0]}"
            )
        if "energy" in wanted and "energy" not in store.references:
            raise UserError(f"{store.path} has no per-element reference energies; import it again to add them")


def _columns(stores: Mapping[str, Store], without: Collection[str]) -> dict[str, bool]:
    """All metadata columns, and whether each is a text; `UserError` where it is one in some of the stores alone."""
    found: dict[str, bool] = {}
    for store in stores.values():
        for name, node in store.h5(0)["metadata"].items():
            text = h5py.check_string_dtype(node.dtype) is not None
            if found.setdefault(name, text) != text and name not in without:
                raise UserError(
                    f"the metadata column {name!r} is a text in one data set and a number in another; leave it out with"
                    f" --without {name}"
                )
    return found


def _copy(source: h5py.File, target: h5py.File, without: Collection[str], groups: int) -> None:
    """A shard without some of its content, its groups numbered from `groups`."""
    target.attrs.update({name: value for name, value in source.attrs.items() if name != "fingerprint"})
    source.copy("offsets", target)
    for per in ("items", "samples", "metadata"):
        for name in source[per]:
            if name not in without and (per, name) != ("samples", "group"):
                source.copy(f"{per}/{name}", target.require_group(per))
    extend(growing(target, "samples/group", (), "i4"), source["samples/group"][...] + groups)


def _fill(shard: h5py.File, periodic: Collection[str], columns: Mapping[str, bool]) -> None:
    """Give a shard the cells and the metadata columns that only other data sets have."""
    for field in (FIELDS[name] for name in periodic if name not in shard["samples"]):
        _constant(shard, f"samples/{field.name}", field.dtype, 0, field.shape)
        shard[f"samples/{field.name}"].attrs["unit"] = field.unit
    for name, text in columns.items():
        if name not in shard.require_group("metadata"):
            _constant(shard, f"metadata/{name}", h5py.string_dtype() if text else "f8", "" if text else np.nan)


def _constant(shard: h5py.File, name: str, dtype: Any, value: Any, shape: tuple[int, ...] = ()) -> None:
    node, rows = growing(shard, name, shape, dtype), int(shard.attrs["samples"])
    for start in range(0, rows, ROWS_AT_ONCE):
        extend(node, np.full((min(ROWS_AT_ONCE, rows - start), *shape), value, dtype))


def _describe(stores: Mapping[str, Store], first: h5py.File, without: Collection[str], seed: int) -> None:
    """Write groups, references and splits into the first shard."""
    names = [f"{name}/{group}" for name, store in stores.items() for group in store.groups]
    extend(growing(first, "groups", (), h5py.string_dtype()), np.array(names, dtype=object))
    if "energy" in first["samples"]:
        first["references/energy"] = np.stack([store.references["energy"] for store in stores.values()])
    starts = dict(zip(stores, offsets_of(np.array([len(store) for store in stores.values()])), strict=False))
    rng = np.random.default_rng(seed)
    for split in sorted({split for store in stores.values() for split in store.splits}):
        parts = {name: store.splits[split] for name, store in stores.items() if split in store.splits}
        shifts = {part.shift for part in parts.values()}
        alike = len(shifts) == 1 and len(parts) == len(stores)
        graded = {part.severity_column for part in parts.values()}
        column = graded.pop() if len(graded) == 1 else None
        severities = [part.severity for part in parts.values()]
        write_split(
            first,
            split,
            interleaved([part.indices() + starts[name] for name, part in parts.items()], rng),
            shift=shifts.pop() if alike else "; ".join(f"{name}: {part.shift}" for name, part in parts.items()),
            severity=_mean(severities, [part.size for part in parts.values()], column is not None),
            severity_column=None if column in without else column,
            disjoint=all(part.disjoint for part in parts.values()),
        )


def _mean(severities: Sequence[float | None], sizes: Sequence[int], alike: bool) -> float | None:
    """The mean over samples of severities that mean the same: they do if they are `alike`, or equal."""
    known = [severity for severity in severities if severity is not None]
    if len(known) < len(severities) or not (alike or len(set(known)) == 1):
        return None
    return float(np.average(known, weights=sizes))
