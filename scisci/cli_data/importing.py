"""`scisci data import`: pack a file of another format into a store."""

from __future__ import annotations

import argparse
from operator import length_hint
from pathlib import Path
from typing import Any

from scisci.cli_data.options import add_splits, fractions, pairs, with_progress
from scisci.contracts.errors import UserError
from scisci.sources.registry import SOURCES, source


def add(commands: Any) -> None:
    """Add the sub-command."""
    formats = "\n".join(f"  {name:20s}{found.text}" for name, found in SOURCES.items())
    sub = commands.add_parser(
        "import",
        help="pack a file of another format into a store",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"formats:\n{formats}",
    )
    sub.add_argument("path", type=Path, metavar="PATH", help="a file, or a folder where the format has them")
    sub.add_argument("--format", required=True, metavar="NAME", help="one of those below")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file, or a folder for shards")
    sub.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="LABEL=NAME",
        help="name of a label in the file, or LABEL=none to do without it; keep=NAME,NAME keeps entries as metadata",
    )
    sub.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out frames that cannot be used, and list them in STORE.skipped.txt (default: stop at the first)",
    )
    add_splits(sub)
    sub.set_defaults(action=import_file)


def import_file(args: argparse.Namespace) -> None:
    """Stream a file of an outside format into a new store with train, val and test splits."""
    from scisci.data.card import CardSplit
    from scisci.sources.packing import Division, pack

    chosen, division = source(args.format), Division(fractions(args.split), args.split_by == "group", args.seed)
    if not args.path.exists():
        raise UserError(f"{args.path} does not exist; give the file to import")
    if args.path.is_dir() and not (chosen.folder or chosen.published):
        raise UserError(f"{args.path} is a folder; give a file of format {args.format}")
    parts = chosen.parts(args.path, pairs(args.key, "--key", str))
    read = ((part.split, with_progress(part.frames, f"reading {part.path.name}")) for part in parts)
    about = {part.split: CardSplit(shift="none: as published") for part in parts if part.split is not None}
    print(pack(read, args.out, chosen.domain, division, about, args.skip_bad))
    for part in parts:
        published = chosen.published.get(part.split or "")
        if published is not None and (size := length_hint(part.frames)) != published:
            print(f"mind: {part.split!r} has {size:,} samples in its file, where {published:,} are published")
    print(f"'scisci data info {args.out}' describes it")
