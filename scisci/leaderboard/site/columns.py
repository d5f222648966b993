"""The columns of a board: every number of an entry, what it means, and whether the page shows it at first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from scisci.leaderboard.board import Board, Entry, Exponent
from scisci.leaderboard.site.cells import MISSING, Cell, Column, Table, count, measured, text
from scisci.leaderboard.site.names import AXES, labels, split_label
from scisci.report.wording import duration, short, significant

TONES = {"identified": "", "weak": "fair", "not identified": "poor"}
STATUS_TONES = {"reproduced": "good", "recomputed": "", "self-reported": "fair"}
CONTAMINATION_TONES = {"none known": "", "possible": "fair", "known": "poor"}
AGAINST = {
    "slope": ("slope", "the exponents differ"),
    "offset": ("offset", "the exponents agree within their intervals, the level differs"),
    "none": ("neither", "neither exponent nor level differs"),
    "undecided": ("undecided", "the fits do not tell"),
    "is the reference": ("reference", "the model that the others are compared with"),
}

EntryColumn = Column[Entry]


def board_table(board: Board) -> Table[Entry]:
    """All entries of a board with every column there is."""
    caption = f"{board.metric.title}, {board.metric.direction} is better; best first"
    return Table("board", caption, list(columns(board)), board.entries, "table")


def columns(board: Board) -> Iterator[EntryColumn]:
    """The columns of a board, in the order of its table."""
    names = labels((entry.slug, entry.submission.name) for entry in board.entries)
    yield Column("rank", "rank", _RANK, lambda e: count(e.rank), "model")
    yield Column("name", "model", "one submission", lambda e: model_cell(e, names[e.slug]), "model", numeric=False)
    yield Column(
        "overall",
        "overall",
        "geometric mean over the splits of the error relative to a trivial predictor's; needs every split",
        lambda e: measured(e.overall),
        "error",
        interval=True,
    )
    for split in board.splits:
        yield from _errors(board, split)
    yield from _size()
    yield from _cost()
    yield from _symmetry(board)
    for axis in AXES:
        for split in board.splits:
            yield from _scaling(board, axis, split)
    yield from _identity()
    yield from _trust()


_RANK = "1 + the number of shown entries whose whole interval lies below this one's; ties share a rank"


def model_cell(entry: Entry, label: str) -> Cell:
    """A model by its name, linked to its page, with its family and status below."""
    note = f"{entry.submission.family} · {entry.status}"
    return Cell(label, entry.submission.name, note=note, link=f"models/{entry.slug}/index.html")


def _identity() -> Iterator[EntryColumn]:
    family = lambda e: text(e.submission.family)
    yield Column("slug", "slug", "name of its folder", lambda e: text(e.slug), "model", numeric=False, shown=False)
    yield Column("family", "family", "kind of model", family, "model", numeric=False, shown=False)
    yield Column(
        "status",
        "status",
        "self-reported; recomputed from predictions; reproduced by a maintainer's own training",
        lambda e: text(e.status, tone=STATUS_TONES[e.status]),
        "model",
        numeric=False,
        shown=False,
    )
    yield Column(
        "claims",
        "symmetry claims",
        "what the authors claim of each group of operations",
        lambda e: text(", ".join(f"{group} {claim}" for group, claim in e.submission.symmetry.items())),
        "model",
        numeric=False,
        shown=False,
    )


def _errors(board: Board, split: str) -> Iterator[EntryColumn]:
    label, metric = split_label(split), board.metric
    short_label = label.replace("ID · ", "ID ").replace("OOD · ", "OOD ")
    score = lambda e: e.scores.get(split)
    yield Column(
        f"error.{split}",
        f"{short_label} error",
        f"{metric.title} on {split}: {metric.description}; 95 % interval below",
        lambda e: measured(s.error if (s := score(e)) else None),
        "error",
        interval=True,
    )
    if split != board.splits[0]:
        yield Column(
            f"gap.{split}",
            f"{short_label} gap",
            f"error on {split} over error on {board.splits[0]}; 1 is no loss out of distribution",
            lambda e: measured(s.gap if (s := score(e)) else None),
            "gap",
            interval=True,
            shown=len(board.splits) <= 4,
        )
    yield Column(
        f"rank.{split}",
        f"{short_label} rank",
        f"rank on {split} among all entries",
        lambda e: count(s.rank if (s := score(e)) else None),
        "error",
        shown=False,
    )
    yield Column(
        f"normalised.{split}",
        f"{short_label} normalised",
        f"error on {split} over that of a trivial predictor, which no submission moves",
        lambda e: count(s.normalised if (s := score(e)) else None, significant),
        "error",
        shown=False,
    )
    yield Column(
        f"sealed.{split}",
        f"{short_label} sealed",
        f"error on the sealed test set with the shift of {split}, whose labels nobody but its keepers has",
        lambda e: measured(s.sealed if (s := score(e)) else None),
        "sealed",
        interval=True,
        shown=False,
    )
    yield Column(
        f"sealed_gap.{split}",
        f"{short_label} sealed gap",
        f"sealed over public error on {split}; above 1, the public test set may have been fitted",
        lambda e: measured(s.sealed_gap if (s := score(e)) else None),
        "sealed",
        interval=True,
        shown=False,
    )
    yield Column(
        f"samples.{split}",
        f"{short_label} samples",
        f"samples of {split} that were predicted; ranked are those that cover as many as any",
        lambda e: count(s.samples if (s := score(e)) else None),
        "coverage",
        shown=False,
    )


def _size() -> Iterator[EntryColumn]:
    group = "size"
    yield Column("size", "size", "the size shown", lambda e: text(e.size), group, numeric=False, shown=False)
    yield Column("params", "parameters", "of the size shown", lambda e: count(e.params, short), group)
    yield Column(
        "params_body",
        "parameters of the body",
        "without embeddings and references",
        lambda e: count(e.params_body, short),
        group,
        shown=False,
    )
    yield Column("data", "training samples", "unique ones", lambda e: count(e.data), group)
    yield Column("seeds", "seeds", "runs that the errors are means over", lambda e: count(e.seeds), group, shown=False)
    yield Column(
        "chosen_by",
        "chosen by",
        "how the size and the data amount shown were chosen, never on a shifted split",
        lambda e: text(e.chosen_by),
        group,
        numeric=False,
        shown=False,
    )


def _cost() -> Iterator[EntryColumn]:
    group = "cost"
    yield Column("flops", "training FLOPs", "measured, one run", lambda e: count(e.flops, _power), group)
    yield Column(
        "seconds",
        "wall time",
        "one run, training and evaluation; greyed, and last, where other processes used the device",
        lambda e: wall_time(e.seconds, e.shared),
        group,
    )
    yield Column(
        "peak_memory",
        "peak memory",
        "one run, MiB",
        lambda e: count(e.peak_memory, lambda mib: f"{mib:,.0f} MiB"),
        group,
        shown=False,
    )
    yield Column("device", "device", "what it ran on", lambda e: text(e.device), group, numeric=False, shown=False)
    yield Column(
        "shared",
        "device shared",
        "whether other processes used the device while the runs trained: then wall time is no measure of speed",
        lambda e: shared_cell(e.shared),
        group,
        numeric=False,
        shown=False,
    )
    yield Column(
        "device_hours",
        "device hours",
        "of all runs of the submission",
        lambda e: count(e.submission.hardware.device_hours, significant),
        group,
        shown=False,
    )
    yield Column(
        "cost_usd",
        "cost [USD]",
        "of all runs of the submission, as its authors say",
        lambda e: count(e.submission.hardware.cost_usd, significant),
        group,
        shown=False,
    )
    yield Column(
        "trials",
        "tuning runs",
        "training runs made to choose hyper-parameters",
        lambda e: count(e.submission.tuning.trials),
        group,
        shown=False,
    )


def wall_time(seconds: float, shared: bool | None) -> Cell:
    """A run's time; on a shared device as text alone, which neither sorts nor is a number in downloads."""
    if shared:
        hint = "no measure of speed: other processes used the device"
        return Cell(duration(seconds), note="shared device", tone="unusable", hint=hint)
    return count(seconds, duration, hint="" if shared is False else "not known whether other processes used the device")


def shared_cell(shared: bool | None) -> Cell:
    """Whether a device was shared, in words."""
    return text({True: "yes", False: "no", None: "not known"}[shared])


def _symmetry(board: Board) -> Iterator[EntryColumn]:
    for metric in sorted({metric for entry in board.entries for metric in entry.symmetry}):
        yield Column(
            f"symmetry.{metric}",
            re.sub(r"^symmetry_", "", metric).replace("_", " ") + " error",
            "relative symmetry error on the in-distribution split, as its authors reported it",
            partial(_symmetry_error, metric),
            "symmetry",
            shown=False,
        )


def _symmetry_error(metric: str, entry: Entry) -> Cell:
    return count(entry.symmetry.get(metric), lambda value: significant(value, 2))


def _scaling(board: Board, axis: str, split: str) -> Iterator[EntryColumn]:
    group, where = f"scaling with {AXES[axis]}", split_label(split).replace(" · ", " ")
    found = lambda e: e.exponent(axis, split)
    if not any(found(entry) for entry in board.entries):
        return
    yield Column(
        f"exponent.{axis}.{split}",
        f"{where} exponent, {axis}",
        f"how fast the error on {split} falls with {AXES[axis]}: the power law's exponent, 95 % interval below",
        lambda e: exponent(found(e)),
        group,
        interval=True,
        shown=axis == "flops" and split in board.splits[:2],
    )
    yield Column(
        f"held_out.{axis}.{split}",
        f"{where} held-out error, {axis}",
        "rms of ln predicted - ln observed at the largest scale, which the fit had not seen",
        lambda e: count(f.held_out if (f := found(e)) else None, lambda value: significant(value, 2)),
        group,
        shown=False,
    )
    yield Column(
        f"against.{axis}.{split}",
        f"{where} against reference, {axis}",
        f"what differs from {board.reference or 'the reference (this board has none)'}: the slope or the offset",
        lambda e: against(found(e)),
        group,
        numeric=False,
        shown=False,
    )
    if axis == "flops" and board.compute is not None:
        yield Column(
            f"forecast.{split}",
            f"{where} forecast at {_power(board.compute)} FLOPs",
            f"error on {split} that the fit forecasts for one further run of {_power(board.compute)} training FLOPs",
            lambda e: forecast(found(e)),
            group,
            interval=True,
            shown=False,
        )


def exponent(found: Exponent | None) -> Cell:
    """An exponent with its verdict as tone; words in place of a number where it is not identified."""
    if found is None:
        return Cell(MISSING)
    if found.estimate is None:
        return Cell(found.verdict, tone=TONES.get(found.verdict, ""), hint=found.reason)
    hint = found.verdict if found.verdict != "identified" else ""
    hint += f": {found.reason}" if found.reason else ""
    return measured(found.estimate, tone=TONES.get(found.verdict, ""), hint=hint)


def forecast(found: Exponent | None) -> Cell:
    """The error forecast at the board's compute, or why there is none."""
    return measured(found.forecast, hint=found.forecast_reason) if found else Cell(MISSING)


def against(found: Exponent | None) -> Cell:
    """What differs from the reference, with the words that say how it was decided."""
    if found is None:
        return Cell(MISSING)
    word, about = AGAINST[found.against_reference]
    return text(word, hint=found.against_reference_words or about)


def _trust() -> Iterator[EntryColumn]:
    group = "trust"
    yield Column(
        "contamination",
        "contamination",
        "whether test samples may be among the training data, as its authors say; entries are marked, not demoted",
        lambda e: text(
            e.submission.training_data.contamination,
            tone=CONTAMINATION_TONES[e.submission.training_data.contamination],
        ),
        group,
        numeric=False,
        shown=False,
    )
    yield Column(
        "flags",
        "flags",
        "what the checks found odd",
        lambda e: count(len(e.flags), tone="poor" if e.flags else "", hint="; ".join(e.flags)),
        group,
        shown=False,
    )
    yield Column(
        "runs_ok",
        "runs that ended well",
        "of all runs that the submission lists on this data set",
        lambda e: Cell(f"{e.runs_ok} of {e.runs}", e.runs_ok, tone="fair" if e.runs_ok < e.runs else ""),
        group,
        shown=False,
    )
    yield Column("runs", "runs", "listed on this data set", lambda e: count(e.runs), group, shown=False)
    licence = lambda e: text(e.submission.licence)
    yield Column("licence", "licence", "of code and weights", licence, group, numeric=False, shown=False)
    date = lambda e: text(e.submission.date.isoformat())
    yield Column("date", "date", "of the submission", date, group, numeric=False, shown=False)


def _power(flops: float) -> str:
    """FLOPs as 3.2×10¹⁵."""
    return significant(flops, 2)
