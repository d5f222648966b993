"""`scisci data download`: get a data set from where its card says, and pack it into a store."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.cli_data.options import with_progress
from scisci.contracts.errors import UserError, unknown_name

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from scisci.data.card import Card, RemoteFile


def add(commands: Any) -> None:
    """Add the sub-command."""
    sub = commands.add_parser(
        "download",
        help="get a data set from where its card says",
        description="Downloads the files that the card names, checks them, and packs them into a store. A download that"
        " was cut goes on when it is run again; files that are in the cache need no network.",
    )
    sub.add_argument("name", metavar="NAME", help="a data set of 'scisci data list'")
    sub.add_argument("--part", metavar="PART", help="only this part of it, such as a molecule; needs --out")
    sub.add_argument("--out", type=Path, metavar="STORE", help="default: in the cache, where its name finds it")
    sub.add_argument("--cache", type=Path, metavar="DIR", help="for what is downloaded (default: the user's cache)")
    sub.add_argument("--skip-bad", action="store_true", help="skip frames that cannot be used, and say how many")
    sub.set_defaults(action=download)


def download(args: argparse.Namespace) -> None:
    """Fetch, check and pack a data set; says whose it is and on what terms it may be used."""
    from scisci.data.library import cache_folder, read_card
    from scisci.sources.packing import Division, pack
    from scisci.sources.registry import source

    card = read_card(args.name)
    if card.download is None:
        raise UserError(f"data set {args.name!r} is not downloaded; {card.how_to_get(args.name)}")
    files = _chosen(card, args.name, args.part)
    if args.part and not args.out:
        raise UserError(f"a part of {args.name} is not the data set of that name; say with --out where it is to be")
    out = args.out or cache_folder() / args.name / "data"
    if out.exists():
        raise UserError(f"{out} exists already; remove it first, or choose another place with --out")
    chosen, how = source(card.download.format), card.download
    print(f"{card.title}\nlicence: {card.licence}\ncite:", *(f"  - {line}" for line in card.citation), sep="\n")
    folder = (args.cache or cache_folder()) / args.name / "files"
    paths, read = _fetch(files, folder), chosen.reader()
    parts = (
        (file.split, with_progress(read(path, how.keys), f"reading {path.name}"))
        for file, path in zip(files, paths, strict=True)
    )
    division = Division(how.division, how.divide_by == "group", how.seed)
    print(pack(parts, out, chosen.domain, division, card.splits, args.skip_bad or how.skip_bad))
    print(f"'scisci data info {args.out or args.name}' describes it; the files it was made of stay in {folder}")


def _chosen(card: Card, name: str, part: str | None) -> list[RemoteFile]:
    assert card.download is not None
    if part is None:
        return card.download.files
    files = [file for file in card.download.files if file.part == part]
    if not files:
        raise unknown_name(f"part of {name}", part, {file.part for file in card.download.files if file.part})
    return files


def _fetch(files: list[RemoteFile], folder: Path) -> list[Path]:
    """Where the content of each file is, once all of it has arrived; archives are fetched and unpacked once."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from scisci.data.download import extract, fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    fetched: dict[str, Path] = {}
    with Progress(*columns, TimeRemainingColumn(), transient=True) as bars:
        for file in {file.url: file for file in files}.values():
            bar = bars.add_task(file.filename, total=None)
            fetched[file.url] = fetch(file, folder, partial(_update, bars, bar))
            if file.checksum is None:
                print(f"{file.filename}: its card has no checksum; it has to stay what it is now")
    members: dict[str, dict[str, Path]] = {
        url: extract(path, [f.member for f in files if f.url == url and f.member]) for url, path in fetched.items()
    }
    return [members[file.url][file.member] if file.member else fetched[file.url] for file in files]


def _update(bars: Progress, bar: TaskID, done: int, total: int | None) -> None:
    bars.update(bar, completed=done, total=total)
