"""Options that several `scisci data` sub-commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from scisci.contracts.errors import UserError

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


def with_progress(items: Iterable[T], title: str) -> Iterator[T]:
    """The items, with a bar while they are taken that says how many there were, and of how many if that is known."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        yield from progress.track(items, description=title)
