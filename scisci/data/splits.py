"""Splits: dividing samples by chance or by group, and proving that nothing leaks between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.store import Store


@dataclass(frozen=True)
class Part:
    """The samples of one split, in order, and how they differ from `train`."""

    indices: np.ndarray
    shift: str
    severity: float | None = None
    """the mean over its samples, in the shift's unit"""
    severity_column: str | None = None
    """metadata column with the severity of every sample"""


@dataclass(frozen=True)
class Plan:
    """The splits of a store to be, and the metadata columns [n] that they refer to."""

    parts: dict[str, Part]
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def check_fractions(fractions: Mapping[str, float]) -> None:
    """`UserError` unless every fraction is above 0 and they sum to at most 1."""
    if not fractions or any(not 0 < f <= 1 for f in fractions.values()) or sum(fractions.values()) > 1 + 1e-9:
        raise UserError(
            f"split fractions {dict(fractions)} are not possible: each is above 0 and they sum to at most 1"
        )


def random_split(samples: int, fractions: Mapping[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Divide `samples` at random: split name → indices in random order, of the stated fractions.

    The order is fixed by the seed, so the first D of `train` are nested training subsets.
    """
    check_fractions(fractions)
    order = np.random.default_rng(seed).permutation(samples)
    edges = np.round(np.cumsum([0.0, *fractions.values()]) * samples).astype(int)
    parts = {name: order[a:b] for name, a, b in zip(fractions, edges[:-1], edges[1:], strict=True)}
    if empty := [name for name, part in parts.items() if not len(part)]:
        raise UserError(f"{samples} samples leave split {empty[0]!r} empty; give more samples or other fractions")
    return parts


def group_split(groups: np.ndarray, fractions: Mapping[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Divide whole groups at random, so that no group is in two splits. `groups` [n] are integers."""
    names = np.unique(groups)
    chosen = random_split(len(names), fractions, seed)
    rng = np.random.default_rng([seed, 1])
    return {
        split: rng.permutation(np.flatnonzero(np.isin(groups, names[members]))) for split, members in chosen.items()
    }


def drawn(
    plan: Plan, fractions: Mapping[str, float], seed: int = 0, groups: np.ndarray | None = None, origin: str = "train"
) -> Plan:
    """The plan with its split `origin` divided at random into those of `fractions`, by whole groups if given [n]."""
    source = plan.parts[origin]
    rest = {name: part for name, part in plan.parts.items() if name != origin}
    if taken := sorted(rest.keys() & fractions.keys()):
        raise UserError(f"the split {taken[0]!r} is there already; leave it out of the splits to draw")
    if groups is None:
        chosen = random_split(len(source.indices), fractions, seed)
    else:
        chosen = group_split(groups[source.indices], fractions, seed)
    column = plan.columns.get(source.severity_column or "")
    parts = {}
    for name, members in chosen.items():
        indices = source.indices[members]
        severity = source.severity if column is None else float(column[indices].mean())
        parts[name] = Part(indices, source.shift, severity, source.severity_column)
    return Plan(parts | rest, plan.columns)


def leaks(store: Store) -> list[str]:
    """What the splits share that they must not: a sample in two splits, or a group in `train` and a disjoint split."""
    found = []
    members = {name: split.indices() for name, split in store.splits.items()}
    owner = np.full(len(store), -1)
    for number, (name, indices) in enumerate(members.items()):
        if len(np.unique(indices)) < len(indices):
            found.append(f"split {name!r} holds a sample twice")
        if (taken := owner[indices] >= 0).any():
            other = list(members)[int(owner[indices][taken][0])]
            found.append(f"splits {other!r} and {name!r} share samples")
        owner[indices] = number
    groups = store.sample_column("group")
    for name, split in store.splits.items():
        if split.disjoint and (shared := np.intersect1d(groups[members["train"]], groups[members[name]])).size:
            found.append(f"split {name!r} shares the group {store.groups[shared[0]]!r} with 'train'")
    return found
