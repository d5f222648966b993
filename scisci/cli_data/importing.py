"""`scisci data import`: pack a file of another format into a store."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scisci.cli_data.options import add_splits, fractions, pairs
from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.sources.registry import SOURCES, source

SHOWN = 10


def add(commands: Any) -> None:
    """Add the sub-command."""
    formats = "\n".join(f"  {name:12s}{found.text}" for name, found in SOURCES.items())
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
        help="name of a label in the file, or LABEL=none to do without it",
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
    from scisci.data.references import CompositionLog
    from scisci.data.writer import StoreWriter

    chosen, shares = source(args.format), fractions(args.split)
    if not args.path.exists():
        raise UserError(f"{args.path} does not exist; give the file to import")
    if args.path.is_dir() and not chosen.folder:
        raise UserError(f"{args.path} is a folder; give a file of format {args.format}")
    frames = chosen.reader()(args.path, pairs(args.key, "--key", str))
    log = CompositionLog()
    with (
        _Skipped(args.out.with_name(f"{args.out.name}.skipped.txt")) as skipped,
        StoreWriter(args.out, chosen.domain, checked=True) as writer,
    ):
        _pack(frames, f"reading {args.path.name}", writer, log, skipped if args.skip_bad else None)
        if not len(writer):
            raise UserError(
                f"none of the {skipped.count} frames of {args.path} can be used; {skipped.first[0].strip()}"
            )
        strange = _split(writer, log, shares, args.seed, by_group=args.split_by == "group")
        samples = len(writer)
    print(f"wrote {args.out}: {samples:,} samples; 'scisci data info {args.out}' describes it")
    skipped.report(samples)
    if strange:
        print(f"mind: atomic numbers {strange} are not in 'train', so no model trained on it can be used on them")


class _Skipped:
    """Counts frames that are left out and lists all of them in a file, which is there only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[str] = []
        self._open = ExitStack()

    def __enter__(self) -> _Skipped:
        if self.path.exists():
            raise UserError(f"{self.path} exists already; remove it first or choose another name for the store")
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, line: str) -> None:
        """Count and list a frame."""
        if not self.count:
            temporary = self._open.enter_context(atomic_path(self.path))
            self._file = self._open.enter_context(temporary.open("w", encoding="utf-8"))
        self._file.write(line)
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(line)

    def report(self, samples: int) -> None:
        """Print how many frames were left out beside `samples` that were not, and the first of them."""
        if self.count:
            more = ["...\n"] if self.count > SHOWN else []
            print(f"skipped {self.count:,} of {self.count + samples:,} frames, all listed in {self.path}:")
            print(*self.first, *more, sep="  ", end="")


def _pack(frames: Any, title: str, writer: Any, log: Any, skipped: _Skipped | None) -> None:
    """Append every frame to the store; one that cannot be used is listed, or is an error where there is no list."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from scisci.data.samples import AtomsSample
    from scisci.sources.frames import BadFrame

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        for frame in progress.track(frames, description=title):
            if isinstance(frame, BadFrame):
                if skipped is None:
                    raise UserError(
                        f"{frame.where} cannot be used: {frame.reason}; correct the file, or leave out such frames with"
                        " --skip-bad"
                    )
                skipped.add(f"{frame.where}: {frame.reason}\n")
                continue
            writer.append(frame.sample, frame.group, **frame.metadata)
            if isinstance(frame.sample, AtomsSample) and frame.sample.energy is not None:
                log.add(frame.sample.numbers, frame.sample.energy)


def _split(writer: Any, log: Any, shares: dict[str, float], seed: int, by_group: bool) -> list[int]:
    """Draw the splits, and fit reference energies to `train` where there are energies; elements it does not have."""
    import numpy as np

    from scisci.data.splits import group_split, random_split

    parts = group_split(writer.sample_groups(), shares, seed) if by_group else random_split(len(writer), shares, seed)
    for name, indices in parts.items():
        shift = "none: whole groups drawn at random" if by_group else "none: drawn at random"
        writer.split(name, indices, shift, disjoint=by_group and name != "train")
    if not log.elements:
        return []
    references = log.fit(parts["train"])
    writer.reference("energy", references)
    return sorted(z for z in log.elements if np.isnan(references[z]))
