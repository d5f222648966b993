"""`scisci data import`: pack a file of another format into a store."""

from __future__ import annotations

import argparse
from array import array
from pathlib import Path
from typing import Any

from scisci.cli_data.options import add_splits, fractions, pairs
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
    add_splits(sub)
    sub.set_defaults(action=import_file)


def import_file(args: argparse.Namespace) -> None:
    """Stream a file of an outside format into a new store with train, val and test splits."""
    import numpy as np
    from rich.progress import track

    from scisci.data.references import CompositionLog
    from scisci.data.samples import AtomsSample
    from scisci.data.splits import group_split, random_split
    from scisci.data.writer import StoreWriter
    from scisci.sources.frames import BadFrame

    chosen = source(args.format)
    shares = fractions(args.split)
    if not args.path.is_file():
        raise UserError(f"{args.path} does not exist; give the file to import")
    frames = chosen.reader()(args.path, pairs(args.key, "--key", str))
    log, groups, seen = CompositionLog(), array("i"), dict[str, int]()
    with StoreWriter(args.out, chosen.domain) as writer:
        for frame in track(frames, description=f"reading {args.path.name}", transient=True):
            if isinstance(frame, BadFrame):
                raise UserError(f"{frame.where} cannot be used: {frame.reason}; correct the file")
            writer.append(frame.sample, frame.group, **frame.metadata)
            groups.append(seen.setdefault(frame.group, len(seen)))
            if isinstance(frame.sample, AtomsSample) and frame.sample.energy is not None:
                log.add(frame.sample.numbers, frame.sample.energy)
        by_group = args.split_by == "group"
        parts = (
            group_split(np.array(groups), shares, args.seed)
            if by_group
            else random_split(len(groups), shares, args.seed)
        )
        for name, indices in parts.items():
            shift = "none: whole groups drawn at random" if by_group else "none: drawn at random"
            writer.split(name, indices, shift, disjoint=by_group and name != "train")
        references = log.fit(parts["train"])
        writer.reference("energy", references)
    print(f"wrote {args.out}: {len(groups):,} samples; 'scisci data info {args.out}' describes it")
    if strange := sorted(z for z in log.elements if np.isnan(references[z])):
        print(f"mind: atomic numbers {strange} are not in 'train', so no model trained on it can be used on them")
