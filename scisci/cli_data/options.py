"""Options that several `scisci data` sub-commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    from scisci.sources.packing import BadFrames, Packed

T = TypeVar("T")
DEFAULT_SPLITS = ["train=0.8", "val=0.1", "test=0.1"]


def add_splits(sub: argparse.ArgumentParser) -> None:
    """Add `--split`, `--split-by` and `--seed`: how samples are divided at random."""
    sub.add_argument(
        "--split",
        action="extend",
        nargs="+",
        metavar="NAME=FRACTION",
        help=f"splits to draw (default: {' '.join(DEFAULT_SPLITS)})",
    )
    sub.add_argument(
        "--split-by", choices=["sample", "group"], default="sample", help="what is drawn (default: sample)"
    )
    sub.add_argument("--seed", type=int, default=0)


def fractions(entries: list[str] | None) -> dict[str, float]:
    """`--split` as split → fraction; the default where it is not given."""
    from scisci.data.splits import check_fractions

    entries = entries or DEFAULT_SPLITS
    shares = pairs(entries, "--split", float)
    check_fractions(shares)
    if "train" not in shares:
        raise UserError(
            f"--split {' '.join(entries)} has no split named train, which training needs; add train=FRACTION"
        )
    return shares


def pairs(entries: list[str], option: str, kind: Callable[[str], T]) -> dict[str, T]:
    """NAME=VALUE entries of an option as name → value of a `kind`."""
    found: dict[str, T] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not (name and value):
            raise UserError(f"{option} {entry} is not understood; write it as NAME=VALUE")
        if name in found:
            raise UserError(f"{option} names {name} twice; give it once")
        try:
            found[name] = kind(value)
        except ValueError as error:
            raise UserError(f"{option} {entry} is not understood; write it as NAME=VALUE") from error
    return found


def report(bad: BadFrames, packed: Packed) -> None:
    """Say what was skipped, and which elements a model cannot learn from `train`."""
    if bad.count:
        print(bad.report())
    if packed.strange:
        print(
            f"mind: atomic numbers {list(packed.strange)} are not in 'train', so no model trained on it can be used on"
            " them"
        )
