"""The site's other tables: a board's runs, and what a model's page lists."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scisci.leaderboard.board import Board, Entry, Exponent, RunPoint, Score
from scisci.leaderboard.site.cells import Cell, Column, Table, count, measured, text
from scisci.leaderboard.site.columns import against, exponent, forecast, model_cell, shared_cell, wall_time
from scisci.leaderboard.site.names import AXES, split_label
from scisci.leaderboard.submission import Run, Submission
from scisci.report.wording import short, significant

TOP = 5


@dataclass(frozen=True)
class Scored:
    """An entry's score on one split of one board."""

    board: Board
    entry: Entry
    split: str
    score: Score


@dataclass(frozen=True)
class Fitted:
    """One of an entry's exponents."""

    board: Board
    found: Exponent


def points(board: Board) -> Table[RunPoint]:
    """Every run of a board on every split, which is downloaded only."""
    return Table(
        "runs",
        "runs",
        [
            Column("slug", "model", "", lambda p: text(p.slug)),
            Column("run", "run", "", lambda p: text(p.run)),
            Column("split", "split", "", lambda p: text(p.split)),
            Column("size", "size", "", lambda p: text(p.size)),
            Column("params", "parameters", "", lambda p: count(p.params)),
            Column("data", "training samples", "", lambda p: count(p.data)),
            Column("flops", "training FLOPs", "", lambda p: count(p.flops, significant)),
            Column("error", board.metric.title, "", lambda p: measured(p.error), interval=True),
        ],
        board.points,
        "runs",
        "run",
    )


def top(board: Board, key: str, file: str) -> Table[Entry]:
    """The best entries of a board in few columns: ID, the hardest shifted split, and the gap."""
    error = lambda split: lambda e: measured(s.error if (s := e.scores.get(split)) else None)
    gap = lambda split: lambda e: measured(s.gap if (s := e.scores.get(split)) else None)
    columns: list[Column[Entry]] = [
        Column("rank", "rank", "", lambda e: count(e.rank)),
        Column("name", "model", "", lambda e: model_cell(e, e.submission.name), numeric=False),
        Column("id", split_label(board.splits[0]), "", error(board.splits[0])),
    ]
    if hard := hardest(board):
        columns += [Column("ood", split_label(hard), "", error(hard)), Column("gap", "gap", "", gap(hard))]
    columns += [
        Column("params", "parameters", "", lambda e: count(e.params, short)),
        Column("flops", "training FLOPs", "", lambda e: count(e.flops, lambda value: significant(value, 2))),
    ]
    caption = f"{board.metric.title}: the first {min(TOP, len(board.entries))} of {len(board.entries):,}"
    return Table(key, caption, columns, board.entries[:TOP], file)


def hardest(board: Board) -> str | None:
    """The shifted split of the largest median gap, which the overview shows."""
    return max(board.splits[1:], key=lambda split: _median_gap(board, split), default=None)


def _median_gap(board: Board, split: str) -> float:
    scores = (entry.scores[split] for entry in board.entries if split in entry.scores)
    return statistics.median([score.gap.value for score in scores if score.gap] or [0.0])


def scores(placed: Sequence[tuple[Board, Entry]]) -> Table[Scored]:
    """All scores of one model."""
    rows = [Scored(b, e, split, e.scores[split]) for b, e in placed for split in b.splits if split in e.scores]
    columns: list[Column[Scored]] = [
        *_where(lambda s: s.board),
        Column("split", "split", "", lambda s: Cell(split_label(s.split), s.split), numeric=False),
        Column("rank", "rank", "among all entries", lambda s: count(s.score.rank)),
        Column("error", "error", "with its 95 % interval", lambda s: measured(s.score.error), interval=True),
        Column("gap", "gap", "OOD over ID error", lambda s: measured(s.score.gap), interval=True),
        Column(
            "normalised",
            "normalised",
            "error over that of a trivial predictor",
            lambda s: count(s.score.normalised, significant),
        ),
        Column("sealed", "sealed", "error on the sealed test set", lambda s: measured(s.score.sealed), interval=True),
        Column(
            "sealed_gap",
            "sealed gap",
            "sealed over public error",
            lambda s: measured(s.score.sealed_gap),
            interval=True,
        ),
        Column("samples", "samples", "that were predicted", lambda s: count(s.score.samples)),
        Column("size", "size", "", lambda s: text(s.entry.size), numeric=False),
        Column("data", "training samples", "", lambda s: count(s.entry.data)),
        Column("seeds", "seeds", "", lambda s: count(s.entry.seeds)),
    ]
    return Table("scores", "Errors of the size and data amount shown on the boards", columns, rows, "scores", "split")


def exponents(placed: Sequence[tuple[Board, Entry]]) -> Table[Fitted]:
    """All exponents of one model, with what the fits say of themselves."""
    rows = [Fitted(board, found) for board, entry in placed for found in entry.exponents]
    columns: list[Column[Fitted]] = [
        *_where(lambda f: f.board),
        Column("axis", "against", "", lambda f: text(AXES[f.found.axis]), numeric=False),
        Column("split", "split", "", lambda f: Cell(split_label(f.found.split), f.found.split), numeric=False),
        Column("exponent", "exponent", "with its 95 % interval", lambda f: exponent(f.found), interval=True),
        Column("verdict", "verdict", "of the fit", lambda f: text(f.found.verdict), numeric=False),
        Column("reason", "reason", "", lambda f: text(f.found.reason), numeric=False),
        Column(
            "held_out",
            "held-out error",
            "rms of ln predicted - ln observed at the largest scale",
            lambda f: count(f.found.held_out, lambda value: significant(value, 2)),
        ),
        Column("fixed", "held constant", "", lambda f: text(f.found.fixed), numeric=False),
        Column("forecast", "forecast", "at the board's compute", lambda f: forecast(f.found), interval=True),
        Column("forecast_reason", "why no forecast", "", lambda f: text(f.found.forecast_reason), numeric=False),
        Column("against", "against reference", "what differs", lambda f: against(f.found), numeric=False),
        Column("words", "how", "", lambda f: text(f.found.against_reference_words), numeric=False),
    ]
    caption = "Exponents of the power law without an offset; a larger exponent is a faster fall"
    return Table("exponents", caption, columns, rows, "exponents", "split")


def runs(submission: Submission) -> Table[Run]:
    """Every run that a submission lists, failed ones included, as its authors report it."""
    columns: list[Column[Run]] = [
        Column("run", "run", "", lambda r: text(r.run), numeric=False),
        Column("dataset", "data set", "", lambda r: text(r.dataset), numeric=False),
        Column("outcome", "outcome", "", _outcome, numeric=False),
        Column("size", "size", "", lambda r: text(r.size), numeric=False),
        Column("treatment", "treatment", "", lambda r: text(r.treatment), numeric=False),
        Column("params", "parameters", "", lambda r: count(r.params)),
        Column("params_body", "of the body", "without embeddings and references", lambda r: count(r.params_body)),
        Column("data", "training samples", "", lambda r: count(r.data)),
        Column("samples_seen", "samples seen", "", lambda r: count(r.samples_seen)),
        Column("flops", "training FLOPs", "", lambda r: count(r.flops, significant)),
        Column("seed", "seed", "", lambda r: count(r.seed, str)),
        Column("lr", "learning rate", "", lambda r: count(r.lr, significant)),
        Column("seconds", "wall time", "", lambda r: wall_time(r.seconds, r.shared)),
        Column("peak_memory", "peak memory [MiB]", "", lambda r: count(r.peak_memory, "{:,.0f}".format)),
        Column("device", "device", "", lambda r: text(r.device), numeric=False),
        Column("shared", "device shared", "", lambda r: shared_cell(r.shared), numeric=False),
        Column("reason", "reason", "", lambda r: text(r.reason or ""), numeric=False),
        Column("splits", "predicted samples", "", lambda r: text(_counts(r)), numeric=False),
        Column("reported", "reported by its authors", "", lambda r: text(_said(r)), numeric=False, shown=False),
    ]
    return Table(
        "runs",
        "Every run the submission lists, failed ones included; what its authors measured is in the downloads",
        columns,
        submission.runs,
        "runs",
        "run",
    )


def _outcome(run: Run) -> Cell:
    return Cell(run.status.replace("_", " "), run.status, tone="" if run.status == "ok" else "poor")


def _counts(run: Run) -> str:
    return ", ".join(f"{split} {n:,}" for split, n in run.splits.items())


def _said(run: Run) -> str:
    pairs = ((split, name, value) for split, metrics in run.reported.items() for name, value in metrics.items())
    return ", ".join(f"{split} {name} {significant(value)}" for split, name, value in pairs)


def _where(board_of: Callable[[Any], Board]) -> list[Column[Any]]:
    """The columns that say which board a row is of."""
    return [
        Column("dataset", "data set", "", lambda row: text(board_of(row).dataset), numeric=False),
        Column(
            "metric",
            "metric",
            "",
            lambda row: Cell(board_of(row).metric.title, board_of(row).metric.name),
            numeric=False,
        ),
    ]
