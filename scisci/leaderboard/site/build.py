"""Writing the site: every page, download and script of it, wholly or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating
from scisci.leaderboard.board import Board, Entry
from scisci.leaderboard.site import assets, pages

MARK = "assets/site.css"  # by which a folder is known as a site that may be replaced
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
File = tuple[str, str]


def build(boards: Sequence[Board], out: Path | str, guide: Path | str | None = None) -> None:
    """Write the site of `boards` into the folder `out`; the same boards give the same bytes.

    `guide` is the Markdown of the page "how to submit"; without it the shipped one is taken. A folder that holds
    anything but an earlier site is a `UserError`, and an earlier site is replaced only when the new one is whole.
    """
    out = Path(out).resolve()
    _check(boards, out)
    staging = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with creating(out):
            for name, content in files(boards, None if guide is None else Path(guide)):
                path = staging / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
            _swap(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def files(boards: Sequence[Board], guide: Path | None) -> Iterator[File]:
    """Every file of the site, as its path in the site and its text."""
    yield from assets.files()
    yield from pages.overview(boards)
    yield from pages.guide(guide)
    for board in boards:
        yield from pages.board(board, [other for other in boards if other.dataset == board.dataset])
    for slug, placed in by_model(boards).items():
        yield from pages.model(slug, placed)


def by_model(boards: Iterable[Board]) -> dict[str, list[tuple[Board, Entry]]]:
    """Where each model stands, by its slug."""
    found: dict[str, list[tuple[Board, Entry]]] = {}
    for board in boards:
        for entry in board.entries:
            found.setdefault(entry.slug, []).append((board, entry))
    return dict(sorted(found.items()))


def _check(boards: Sequence[Board], out: Path) -> None:
    for name in [*(board.name for board in boards), *by_model(boards)]:
        if not re.fullmatch(NAME, name):
            raise UserError(f"{name!r} cannot name a page; use letters, digits and '_.-' alone")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).exists()):
        raise UserError(f"{out} holds other things than an earlier site; choose another folder")


def _swap(staging: Path, out: Path) -> None:
    """Put the new folder in the old one's place."""
    old = staging.with_suffix(".old")
    if out.exists():
        os.replace(out, old)
    os.replace(staging, out)
    shutil.rmtree(old, ignore_errors=True)
