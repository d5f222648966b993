"""`scisci data import`: pack a file of another format into a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scisci.cli_data.options import add_splits, fractions, pairs, report
from scisci.contracts.errors import UserError
from scisci.sources.registry import SOURCES, source


def add(commands: Any) -> None:
    """Add the sub-command."""
    formats = "\n".join(f"  {name:12s}{found.text}" for name, found in SOURCES.items())
    sub = commands.add_parser(
        "import",
        help="pack a file of another format into a store",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"formats:\n{formats}",
    )
    sub.add_argument("path", type=Path, metavar="FILE")
    sub.add_argument("--format", required=True, metavar="NAME", help="one of those below")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file, or a folder for shards")
    sub.add_argument("--key", action="append", default=[], metavar="LABEL=NAME", help="name of a label in the file")
    sub.add_argument(
        "--skip-bad", action="store_true", help="skip frames that cannot be used, and say how many (default: stop)"
    )
    add_splits(sub)
    sub.set_defaults(action=import_file)


def import_file(args: argparse.Namespace) -> None:
    """Stream a file of an outside format into a new store with train, val and test splits."""
    from rich.progress import track

    from scisci.sources.packing import BadFrames, Division, pack

    chosen = source(args.format)
    division = Division(fractions(args.split), args.split_by == "group", args.seed)
    if not (args.path.is_file() or (chosen.folder and args.path.is_dir())):
        raise UserError(f"{args.path} does not exist; give the file to import")
    bad = BadFrames(skip=args.skip_bad)
    frames = chosen.reader()(args.path, pairs(args.key, "--key", str))
    shown = track(frames, description=f"reading {args.path.name}", transient=True)
    packed = pack([(None, bad.usable(shown))], args.out, chosen.domain, division)
    print(f"wrote {args.out}: {packed.samples:,} samples; 'scisci data info {args.out}' describes it")
    report(bad, packed)
