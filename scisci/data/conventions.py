"""Splits that others fixed: by a tag per sample, in the conventions of 3BPA and OC20, or by lists of groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.splits import Part, Plan, drawn

SPLIT_NAMES = "train|val|test|ood_.+"
TEMPERATURE = "severity_temperature"


def nested_order(rank: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices [n] in one random order per rank, lower ranks first: prefixes are the nested sets that ranks mark."""
    order = np.random.default_rng(seed).permutation(len(rank))
    return order[np.argsort(rank[order], kind="stable")]


def _unknown(tag: str, expected: str) -> UserError:
    return UserError(f"the tag {tag!r} is not one of this convention ({expected}); correct the column")


def _members(tags: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Indices of the samples of each tag, in random order."""
    names, inverse = np.unique(np.asarray(tags, dtype=str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(inverse))
    return {str(name): order[inverse[order] == k] for k, name in enumerate(names)}


def plain(tags: Sequence[str], seed: int = 0) -> Plan:
    """A tag per sample [n] that is the name of its split: train, val, test or ood_*."""
    parts = {}
    for tag, indices in _members(tags, seed).items():
        if not re.fullmatch(SPLIT_NAMES, tag):
            raise _unknown(tag, "train, val, test, ood_*")
        parts[tag] = Part(indices, ("" if tag.startswith("ood_") else "none: ") + "as fixed by the data set")
    return Plan(parts)


def three_bpa(tags: Sequence[str], seed: int = 0) -> Plan:
    """The file of 3BPA that each sample [n] is from: train_300K, test_300K, test_600K, test_dih, test_dih_beta120, ...

    Molecular dynamics at 300 K is in distribution; `ood_600K` and `ood_1200K` have the temperature as severity; the
    dihedral slices are `ood_dihedral`, or `ood_dihedral_<angle>`. (Kovács et al., J. Chem. Theory Comput. 17, 7696
    (2021).)
    """
    temperature, parts = np.full(len(tags), np.nan), dict[str, Part]()
    for tag, indices in _members(tags, seed).items():
        if dynamics := re.fullmatch(r"(train|test)_(\d+)K", tag):
            role, kelvin = dynamics[1], float(dynamics[2])
            inside = role == "train" or kelvin == 300
            name = role if inside else f"ood_{kelvin:g}K"
            shift = f"{'none' if inside else 'temperature'}: molecular dynamics at {kelvin:g} K"
            part = Part(indices, shift, kelvin, TEMPERATURE)
            temperature[indices] = kelvin
        elif scan := re.fullmatch(r"test_dih(?:_beta(\d+))?", tag):
            name = f"ood_dihedral_{scan[1]}" if scan[1] else "ood_dihedral"
            part = Part(indices, f"geometry: dihedral slice{f' at beta = {scan[1]} degrees' if scan[1] else 's'}")
        else:
            raise _unknown(tag, "train_300K, test_300K, test_600K, test_1200K, test_dih, test_dih_beta120, ...")
        if name in parts:
            raise UserError(f"the tag {tag!r} names a second split {name!r}; import only one of them")
        parts[name] = part
    return Plan(parts, {TEMPERATURE: temperature})


OC20_TRAIN = ("train_200K", "train_2M", "train_20M", "train_all")
OC20_OOD = {
    "ood_ads": "composition: adsorbates that are not in train",
    "ood_cat": "composition: catalyst compositions that are not in train",
    "ood_both": "composition: neither adsorbate nor catalyst composition is in train",
}


def oc20(tags: Sequence[str], seed: int = 0) -> Plan:
    """The smallest official set of OC20 each sample [n] is in: train_200K, train_2M, train_20M, train_all, val_id, ...

    `train` begins with the 200K, goes on to the 2M, then to the 20M, so that those are its first samples; `val_id` is
    halved into `val` and `test`. (Chanussot et al., ACS Catal. 11, 6059 (2021).)
    """
    rank, parts = np.full(len(tags), -1), dict[str, Part]()
    for tag, indices in _members(tags, seed).items():
        name = tag.removeprefix("val_")
        if tag in OC20_TRAIN:
            rank[indices] = OC20_TRAIN.index(tag)
        elif name in OC20_OOD:
            parts[name] = Part(indices, OC20_OOD[name])
        elif name == "id":
            parts["id"] = Part(indices, "none: adsorbates and catalyst compositions of train")
        else:
            raise _unknown(tag, ", ".join((*OC20_TRAIN, "val_id", *(f"val_{name}" for name in OC20_OOD))))
    trained = np.flatnonzero(rank >= 0)
    nested = f"none: the first samples are {', '.join(OC20_TRAIN[k] for k in np.unique(rank[trained]))}"
    plan = Plan({"train": Part(trained[nested_order(rank[trained], seed)], nested), **parts})
    return drawn(plan, {"val": 0.5, "test": 0.5}, seed, origin="id") if "id" in parts else plan


CONVENTIONS: dict[str, Callable[[Sequence[str], int], Plan]] = {"plain": plain, "3bpa": three_bpa, "oc20": oc20}


def by_groups(names: Sequence[str], groups: np.ndarray, held_out: Mapping[str, Sequence[str]], seed: int = 0) -> Plan:
    """Splits of whole groups by name, such as those of another data set that a store also holds; the rest is `train`.

    `names`: the store's groups, to which `groups` [n] refer by position; `held_out`: split → names of its groups.
    """
    position = {name: k for k, name in enumerate(names)}
    owner, order = np.full(len(names), -1), np.random.default_rng(seed).permutation(len(groups))
    for number, (split, wanted) in enumerate(held_out.items()):
        if split == "train" or not re.fullmatch(SPLIT_NAMES, split):
            raise UserError(f"groups cannot be held out for {split!r}; call the split val, test or ood_ and a name")
        if not wanted:
            raise UserError(f"the list for {split!r} is empty; give it a group per line")
        if absent := [name for name in wanted if name not in position]:
            raise UserError(
                f"{split!r} lists {len(absent)} groups that the store lacks, such as {absent[0]!r}; correct the list"
            )
        chosen = [position[name] for name in wanted]
        if (owner[chosen] >= 0).any():
            twice = names[next(k for k in chosen if owner[k] >= 0)]
            raise UserError(f"the group {twice!r} is listed for two splits; list it for one")
        owner[chosen] = number
    of_sample = owner[groups[order]]
    parts = {"train": Part(order[of_sample < 0], "none: the groups that no list names")}
    for number, split in enumerate(held_out):
        parts[split] = Part(order[of_sample == number], "group: the groups of a list")
    return Plan(parts)
