"""`scisci data`: list, describe, verify, import and generate data sets."""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from scisci.contracts.errors import UserError, unknown_name

T = TypeVar("T")
SOURCES = {"extxyz": "scisci.sources.extxyz:read_extxyz"}
GENERATORS = {
    "charged-nbody": "scisci.generate.charged_nbody:generate",
    "xtb-molecules": "scisci.generate.xtb_molecules:generate",
}
GENERATOR_OPTIONS = ("train", "frames", "every", "clip")
DEFAULT_SPLITS = ["train=0.8", "val=0.1", "test=0.1"]


def _load(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)


def list_datasets() -> None:
    """Print every data set found, with what its card says."""
    from rich.console import Console
    from rich.table import Table

    from scisci.data.library import datasets, read_card

    table = Table("name", "domain", "samples", "splits", "title")
    for name in datasets():
        card = read_card(name)
        table.add_row(name, card.domain, f"{card.samples:,}", ", ".join(card.splits), card.title)
    Console().print(table)


def info(name: str) -> None:
    """Print what a store holds, and what its card says of it if it has one."""
    from rich.console import Console
    from rich.table import Table

    from scisci.data.library import datasets, open_dataset, read_card

    store, console = open_dataset(name), Console()
    console.print(
        f"[bold]{name}[/bold]: {len(store):,} samples of domain {store.domain!r} in {len(store.groups)} groups"
    )
    console.print(f"fields: {', '.join(store.fields)}\nfingerprint: {store.fingerprint}")
    table = Table("split", "samples", "severity", "shift", "groups apart from train")
    for split in store.splits.values():
        severity = "" if split.severity is None else f"{split.severity:g}"
        table.add_row(split.name, f"{split.size:,}", severity, split.shift, "yes" if split.disjoint else "")
    console.print(table)
    if name in datasets():
        card = read_card(name)
        console.print(
            f"[bold]{card.title}[/bold]\nmethod: {card.method}\nsource: {card.source}\nlicence: {card.licence}"
        )
        for title, lines in (("cite", card.citation), ("mind", card.caveats)):
            console.print(f"{title}:", *(f"  - {line}" for line in lines), sep="\n")


def verify(name: str) -> None:
    """Check content, splits and card of a data set; `UserError` says what is wrong."""
    from scisci.data.library import datasets, open_dataset, read_card
    from scisci.data.splits import leaks

    store = open_dataset(name)
    store.verify()
    wrong = leaks(store) + (read_card(name).differences(store) if name in datasets() else [])
    if wrong:
        raise UserError(f"{name} is not as it should be: {'; '.join(wrong)}; get it again or correct its card")
    print(f"{name}: {len(store):,} samples, content as written, splits without leaks, fingerprint {store.fingerprint}")


def import_file(args: argparse.Namespace) -> None:
    """Stream a file of an outside format into a new store with train, val and test splits."""
    import numpy as np
    from rich.progress import track

    from scisci.data.references import CompositionLog
    from scisci.data.splits import group_split, random_split
    from scisci.data.writer import StoreWriter

    if args.format not in SOURCES:
        raise unknown_name("format", args.format, SOURCES)
    fractions = _fractions(args.split or DEFAULT_SPLITS)
    if not args.path.is_file():
        raise UserError(f"{args.path} does not exist; give the file to import")
    samples = _load(SOURCES[args.format])(args.path, _pairs(args.key, "--key", str))
    log, groups, seen = CompositionLog(), array("i"), dict[str, int]()
    with StoreWriter(args.out, "atoms") as writer:
        for sample, group in track(samples, description=f"reading {args.path.name}", transient=True):
            writer.append(sample, group)
            groups.append(seen.setdefault(group, len(seen)))
            log.add(sample.numbers, sample.energy)
        by_group = args.split_by == "group"
        parts = (
            group_split(np.array(groups), fractions, args.seed)
            if by_group
            else random_split(len(groups), fractions, args.seed)
        )
        for name, indices in parts.items():
            shift = "none: whole groups drawn at random" if by_group else "none: drawn at random"
            writer.split(name, indices, shift, disjoint=by_group and name != "train")
        references = log.fit(parts["train"])
        writer.reference("energy", references)
    print(f"wrote {args.out}: {len(groups):,} samples; 'scisci data info {args.out}' describes it")
    if strange := sorted(z for z in log.elements if np.isnan(references[z])):
        print(f"mind: atomic numbers {strange} are not in 'train', so no model trained on it can be used on them")


def _fractions(entries: list[str]) -> dict[str, float]:
    from scisci.data.splits import check_fractions

    fractions = _pairs(entries, "--split", float)
    check_fractions(fractions)
    if "train" not in fractions:
        raise UserError(
            f"--split {' '.join(entries)} has no split named train, which training needs; add train=FRACTION"
        )
    return fractions


def _pairs(entries: list[str], option: str, kind: Callable[[str], T]) -> dict[str, T]:
    pairs: dict[str, T] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not (name and value):
            raise UserError(f"{option} {entry} is not understood; write it as NAME=VALUE")
        if name in pairs:
            raise UserError(f"{option} names {name} twice; give it once")
        try:
            pairs[name] = kind(value)
        except ValueError as error:
            raise UserError(f"{option} {entry} is not understood; write it as NAME=VALUE") from error
    return pairs


def generate(args: argparse.Namespace) -> None:
    """Run the simulator behind a data set; an option that it does not have is refused."""
    if args.name not in GENERATORS:
        raise unknown_name("generated data set", args.name, GENERATORS)
    simulator = _load(GENERATORS[args.name])
    options = {name: value for name in GENERATOR_OPTIONS if (value := getattr(args, name)) is not None}
    if foreign := [name for name in options if name not in signature(simulator).parameters]:
        raise UserError(f"{args.name} has no option --{foreign[0]}; leave it out")
    simulator(args.out, seed=args.seed, log=print, **options)
    print(f"wrote {args.out}; 'scisci data info {args.out}' describes it")


def parser() -> argparse.ArgumentParser:
    """The options of `scisci data`."""
    top = argparse.ArgumentParser(
        prog="scisci data", description="Data sets: list, describe, verify, import, generate."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all data sets found")
    for name, text in (("info", "what a data set holds"), ("verify", "check content, splits and card")):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("name", metavar="NAME", help="name of a data set, or path of a store")
    sub = commands.add_parser("import", help="pack a file of another format into a store")
    sub.add_argument("path", type=Path, metavar="FILE")
    sub.add_argument("--format", required=True, help=f"one of: {', '.join(SOURCES)}")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file, or a folder for shards")
    sub.add_argument("--key", action="append", default=[], metavar="LABEL=NAME", help="name of a label in the file")
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
    sub = commands.add_parser("generate", help="run the simulator behind a data set")
    sub.add_argument("name", metavar="NAME", help=f"one of: {', '.join(GENERATORS)}")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file")
    sub.add_argument("--seed", type=int, default=20260)
    nbody = sub.add_argument_group("charged-nbody")
    nbody.add_argument("--train", type=int, metavar="N", help="training systems (default: 3000)")
    nbody.add_argument("--frames", type=int, nargs=2, metavar="K", help="input and target frame (default: 30 40)")
    nbody.add_argument("--every", type=int, metavar="STEPS", help="steps from frame to frame (default: 100)")
    nbody.add_argument("--clip", choices=["component", "norm"], help="of forces above 100 (default: component)")
    return top


def main(argv: list[str]) -> None:
    """Run `scisci data`."""
    args = parser().parse_args(argv)
    actions = {
        "list": lambda: list_datasets(),
        "info": lambda: info(args.name),
        "verify": lambda: verify(args.name),
        "import": lambda: import_file(args),
        "generate": lambda: generate(args),
    }
    actions[args.command]()
