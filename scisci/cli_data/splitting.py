"""`scisci data split` and `shifts`: other splits for the samples of a store, in a new store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.cli_data.options import add_splits, fractions, pairs
from scisci.contracts.errors import UserError, unknown_name

if TYPE_CHECKING:
    from scisci.data.shifts import Setting
    from scisci.data.splits import Plan
    from scisci.data.store import Store


class _By(argparse.Action):
    """Collects (shift, its levels)."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest) or []
        if values in dict(before):
            raise UserError(f"{option} {values} is given twice; give it once, with all its levels")
        setattr(namespace, self.dest, [*before, (values, [])])


class _Level(argparse.Action):
    """Gives levels to the shift of the `--by` before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if not namespace.by:
            raise UserError(f"{option} belongs to the --by before it; write --by SHIFT {option} LEVEL")
        namespace.by[-1][1].extend(values)


def add(commands: Any) -> None:
    """Add the two sub-commands."""
    sub = commands.add_parser("shifts", help="the shifts that 'split --by' knows")
    sub.set_defaults(action=lambda args: list_shifts())
    sub = commands.add_parser(
        "split",
        help="a copy of a store with other splits",
        description="Copy a store, with splits in and out of distribution by one or more shifts, by a metadata column,"
        " or by lists of groups. What is in distribution is then divided at random into train, val and test.",
    )
    sub.add_argument("name", metavar="NAME", help="name of a data set, or path of a store")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file, or a folder for shards")
    how = sub.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--by", action=_By, metavar="SHIFT", help="see 'scisci data shifts'; or a metadata column; may be repeated"
    )
    how.add_argument("--split-column", metavar="COLUMN", help="metadata column with the official split of each sample")
    how.add_argument(
        "--group-list", action="append", metavar="SPLIT=FILE", help="file with a group per line; may be repeated"
    )
    sub.add_argument(
        "--train-below",
        action=_Level,
        nargs="+",
        metavar="LEVEL",
        help="of the --by before it: in distribution up to this value, or this share of the samples (90%%); further"
        " levels divide what is beyond",
    )
    sub.add_argument("--elements", nargs="+", default=[], metavar="SYMBOL", help="held out by the shift 'element'")
    sub.add_argument(
        "--cutoff", type=float, metavar="R", help="of graphs, in the data's unit of length (connectivity: bonds)"
    )
    sub.add_argument(
        "--reference",
        default="train",
        metavar="SPLIT",
        help="from which distances are measured, or all (default: train)",
    )
    sub.add_argument(
        "--convention", default="plain", metavar="NAME", help="of the split column: plain (default), 3bpa or oc20"
    )
    add_splits(sub)
    sub.set_defaults(action=split)


def list_shifts() -> None:
    """Print every shift with its definition."""
    from rich.console import Console
    from rich.table import Table

    from scisci.data.shifts import SHIFTS

    table = Table("shift", "severity of a sample", "unit", "needs", "train below", show_lines=True)
    for name, shift in SHIFTS.items():
        table.add_row(name, shift.text, shift.unit, ", ".join(shift.needs), shift.level)
    console = Console()
    console.print(table)
    for source in {shift.source for shift in SHIFTS.values() if shift.source}:
        names = [name for name, shift in SHIFTS.items() if shift.source == source]
        console.print(f"{', '.join(names)}: after {source}")
    console.print("Any metadata column of numbers, such as a temperature, is a shift as well.")


def split(args: argparse.Namespace) -> None:
    """Write a copy of a store with other splits, and show them."""
    from scisci.cli_data.describe import info
    from scisci.data.library import open_dataset
    from scisci.data.resplit import check_target, resplit
    from scisci.data.splits import drawn

    store = open_dataset(args.name)
    check_target(store, args.out)
    _check_used(args)
    plan = _plan(store, args)
    if args.split or not args.split_column:
        groups = store.sample_column("group") if args.split_by == "group" else None
        plan = drawn(plan, fractions(args.split), args.seed, groups)
    strange = resplit(store, args.out, plan)
    info(str(args.out))
    if strange:
        print(f"mind: atomic numbers {strange} are not in 'train', so no model trained on it can be used on them")


def _check_used(args: argparse.Namespace) -> None:
    """`UserError` for an option that would change nothing."""
    from scisci.data.shifts import SHIFTS

    by = {name for name, _ in args.by or []}
    idle = {
        "--elements": args.elements and "element" not in by,
        "--cutoff": args.cutoff is not None and not by & {"connectivity", "connectivity_padded"},
        "--reference": args.reference != "train" and not any(SHIFTS[name].relative for name in by & SHIFTS.keys()),
        "--convention": args.convention != "plain" and not args.split_column,
    }
    if unused := [option for option, is_idle in idle.items() if is_idle]:
        raise UserError(f"{unused[0]} means nothing for these splits; leave it out, or see 'scisci data split --help'")


def _plan(store: Store, args: argparse.Namespace) -> Plan:
    """The splits before what is in distribution is divided."""
    from scisci.data.conventions import CONVENTIONS, by_groups
    from scisci.data.cuts import cut, cut_splits

    if args.by:
        setting = _setting(store, args)
        return cut_splits([cut(setting, name, levels) for name, levels in args.by], args.seed)
    if args.split_column:
        if args.convention not in CONVENTIONS:
            raise unknown_name("convention", args.convention, CONVENTIONS)
        return CONVENTIONS[args.convention](store.metadata(args.split_column).tolist(), args.seed)
    lists = {name: _lines(path) for name, path in pairs(args.group_list, "--group-list", Path).items()}
    return by_groups(store.groups, store.sample_column("group"), lists, args.seed)


def _setting(store: Store, args: argparse.Namespace) -> Setting:
    import numpy as np

    from scisci.data.shifts import Setting

    if args.cutoff is not None and not args.cutoff > 0:
        raise UserError(f"--cutoff is {args.cutoff}, but must be above zero")
    reference = None
    if args.reference == "all":
        reference = np.arange(len(store))
    elif args.reference != "train":
        reference = store.split(args.reference).indices()
    return Setting(store, reference, _atomic_numbers(args.elements), args.cutoff, args.seed)


def _atomic_numbers(symbols: Sequence[str]) -> frozenset[int]:
    from ase.data import atomic_numbers

    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise unknown_name("element", symbol, atomic_numbers)
    return frozenset(atomic_numbers[symbol] for symbol in symbols)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as text; give a file with a group per line") from error
    return [line.strip() for line in lines if line.strip()]
