"""Each page with the downloads that lie beside it, as paths in the site and their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

import scisci
from scisci.contracts.errors import UserError
from scisci.data.card import Card
from scisci.data.library import PACKAGE, datasets, read_card
from scisci.leaderboard.board import Board, Entry
from scisci.leaderboard.site import charts, tables
from scisci.leaderboard.site.assets import points
from scisci.leaderboard.site.cells import Table
from scisci.leaderboard.site.columns import CONTAMINATION_TONES, STATUS_TONES, board_table
from scisci.leaderboard.site.lines import Line, shared_line
from scisci.leaderboard.site.names import AXES, DOMAINS, split_label
from scisci.leaderboard.site.rows import board_rows, point_rows, table_rows
from scisci.report.page import script_json, templates
from scisci.report.wording import capital, listed, short, significant, unbroken

File = tuple[str, str]
FIRST = 50  # rows of a board that are there without scripts


def overview(boards: Sequence[Board]) -> Iterator[File]:
    """The first page: the best of every board, by domain."""
    order = list(DOMAINS)
    place = lambda board: order.index(board.domain) if board.domain in order else len(order)
    listed_boards = sorted(boards, key=lambda board: (place(board), board.title, board.metric.name))
    domains = [
        (
            DOMAINS.get(domain, domain),
            [(board, tables.top(board, _key(board), f"{folder(board)}/table")) for board in group],
        )
        for domain, group in groupby(listed_boards, key=lambda board: board.domain)
    ]
    models = {entry.slug for board in boards for entry in board.entries}
    yield "index.html", _render("index.html.j2", root="", domains=domains, models=len(models))


def guide(path: Path | None) -> Iterator[File]:
    """How to submit, from its Markdown; HTML in it is shown as text."""
    from markdown_it import MarkdownIt

    found = path or next((one for one in _GUIDES if one.exists()), None)
    if found is None or not found.exists():
        raise UserError(f"there is no guide at {found or _GUIDES[0]}; give its Markdown file")

    class Markdown(MarkdownIt):
        def validateLink(self, url: str) -> bool:
            """Links inside the repository lead nowhere from the site: their words stay."""
            return url.startswith(("https://", "http://"))

    text = Markdown("commonmark", {"html": False}).enable("table").render(found.read_text("utf-8"))
    text = text.replace("<pre>", '<pre tabindex="0">')  # commands that are wider than a phone can be reached
    yield "submit.html", _render("submit.html.j2", root="", guide=text)


def board(board: Board, siblings: Sequence[Board]) -> Iterator[File]:
    """A board's page, its table, its runs and what its charts draw."""
    table, here = board_table(board), folder(board)
    card = read_card(board.dataset) if board.dataset in datasets() else None
    yield (
        f"{here}/index.html",
        _render(
            "board.html.j2",
            root="../../",
            board=board,
            table=table,
            groups=_groups(table),
            siblings=[(other.metric.label, f"{folder(other)}/index.html", other is board) for other in siblings],
            choices=_choices(board),
            splits=_splits(board, card),
            lines=[_line(board, split) for split in board.splits[1:]],
            card=card,
            facts=_card_facts(card) if card else [],
            first=table.shown(board.entries[:FIRST]),
            data=script_json(board_rows(board)),
            cells=script_json(table_rows(table)),
            charts=script_json(charts.specs(board)),
            axes=AXES,
        ),
    )
    yield f"{here}/points.js", points(point_rows(board))
    yield from _downloads(here, [table, tables.points(board)])


def model(slug: str, placed: Sequence[tuple[Board, Entry]]) -> Iterator[File]:
    """A model's page: all that its submission says, all scores, exponents and runs."""
    entry, about = placed[0][1], placed[0][1].submission
    listed_tables: list[Table[Any]] = [tables.scores(placed), tables.exponents(placed), tables.runs(about)]
    here = f"models/{slug}"
    context = {
        "slug": slug,
        "about": about,
        "status": entry.status,
        "placed": [(board, one, f"{folder(board)}/index.html#on={slug}") for board, one in placed],
        "flags": dict.fromkeys(flag for _, one in placed for flag in one.flags),
        "links": [(name, str(url)) for name, url in about.links if url is not None],
        "tables": [table.shown() for table in listed_tables],
        "tones": {"status": STATUS_TONES, "contamination": CONTAMINATION_TONES},
    }
    yield f"{here}/index.html", _render("model.html.j2", root="../../", **context)
    yield from _downloads(here, listed_tables)


def folder(board: Board) -> str:
    """Where the files of a board are."""
    return f"boards/{board.name}"


def _downloads(here: str, found: Sequence[Table[Any]]) -> Iterator[File]:
    for table in found:
        yield f"{here}/{table.file}.csv", table.csv()
        yield f"{here}/{table.file}.json", table.json()


def _key(board: Board) -> str:
    return board.name.replace(".", "-")


def _groups(table: Table[Entry]) -> list[tuple[str, list[Any]]]:
    """Columns by group, as the chooser lists them; rank and name are always there."""
    groups: dict[str, list[Any]] = {}
    for column in table.columns:
        if column.key not in ("rank", "name"):
            groups.setdefault(column.group, []).append(column)
    return list(groups.items())


def _choices(board: Board) -> dict[str, list[str]]:
    """What the filters offer: only what entries have."""
    submissions = [entry.submission for entry in board.entries]
    return {
        "family": sorted({about.family for about in submissions}),
        "claim": sorted({f"{group}: {claim}" for about in submissions for group, claim in about.symmetry.items()}),
    }


def _splits(board: Board, card: Card | None) -> list[tuple[str, str]]:
    """Each split of a board and how its samples differ from the training ones, where the card says it."""
    known = card.splits if card else {}
    return [(split_label(split), known[split].shift if split in known else "") for split in board.splits]


def _line(board: Board, split: str) -> str:
    """The line that entries share on a split, in words."""
    found = shared_line(board, split)
    if not isinstance(found, Line):
        return f"{split_label(split)}: {found}."
    return (
        f"{split_label(split)}: slope {found.slope:.2f} [{found.low:.2f}, {found.high:.2f}], "
        f"R² {found.r2:.2f}, over all {found.entries:,} entries."
    )


def _card_facts(card: Card) -> list[tuple[str, str]]:
    facts = [
        ("source", card.source),
        ("method", card.method),
        ("units", ", ".join(f"{quantity} {unit}" for quantity, unit in card.units.items())),
        ("samples", f"{card.samples:,}" if card.samples else ""),
        ("groups", f"{card.groups:,}" if card.groups else ""),
        ("licence", card.licence),
        ("made with", card.regenerate.command if card.regenerate else ""),
        ("fingerprint", card.fingerprint or ""),
        *(("cite", citation) for citation in card.citation),
        *(("caveat", caveat) for caveat in card.caveats),
    ]
    return [(term, words) for term, words in facts if words]


def _render(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(version=scisci.__version__, **context)


@cache
def _environment() -> jinja2.Environment:
    environment = templates("scisci.leaderboard.site")
    environment.filters |= {"unbroken": unbroken, "capital": capital, "listed": listed}
    environment.filters |= {"short": short, "significant": significant, "split_label": split_label}
    return environment


# In an installed package, and in a checkout of the repository.
_GUIDES = (PACKAGE / "leaderboard" / "how-to-submit.md", PACKAGE.parent / "leaderboard" / "README.md")
