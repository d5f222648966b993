"""What a board says of a submission besides its errors: cost, runs, symmetry errors and exponents; and its points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from scisci.leaderboard.board import Board, Entry, Estimate, Exponent, RunPoint
from scisci.leaderboard.choosing import CELL
from scisci.leaderboard.exponents import exponents
from scisci.leaderboard.scores import Scored
from scisci.leaderboard.submission import Run
from scisci.report.wording import NORMAL_95

_FIRST, _MEAN = ("params", "params_body", "device"), ("flops", "seconds", "peak_memory")
Records = dict[tuple[str, str], Mapping[str, Any]]


def entries_of(
    board: Board, rows: pd.DataFrame, configurations: pd.DataFrame, submitted: Mapping[str, Scored]
) -> Iterator[Entry]:
    """An entry for every submission with runs on the board's data set, without scores yet.

    `rows` are those of the board's metric, `configurations` the chosen ones (scisci.leaderboard.choosing). A submission
    none of whose runs there ended well is an entry too.
    """
    runs = rows.drop_duplicates("run")
    ended = runs.groupby("slug").size()
    by_slug = runs.merge(configurations.reset_index(), on=["slug", *CELL]).groupby("slug")
    joined = by_slug.agg(
        {"run": list, "shared": _any_shared} | dict.fromkeys(_FIRST, "first") | dict.fromkeys(_MEAN, "mean")
    )
    cells = joined.join(configurations).join(ended.rename("ended")).to_dict("index")
    reference = _records(submitted[board.reference], board, cells[board.reference]) if board.reference else {}
    for slug, one in submitted.items():
        listed = [run for run in one.submission.runs if (run.dataset, run.horizon) == (board.dataset, board.horizon)]
        if slug in cells:
            of_axis = _records(one, board, cells[slug]).values()
            compared = exponents(of_axis, board.compute, board.reference, reference, slug == board.reference)
            yield _entry(one, cells[slug], listed, compared)
        elif listed and all(run.status != "ok" for run in listed):
            largest = max(listed, key=lambda run: (run.params or 0, run.data))
            nothing = {"run": [], "chosen_by": "no run ended well", "ended": 0}
            yield _entry(one, largest.model_dump() | nothing, listed, ())


def _any_shared(runs: pd.Series) -> bool | None:
    """Whether the device was shared during any of some runs; None where that is not known of all others."""
    return True if runs.eq(True).any() else None if runs.isna().any() else False


def _records(scored: Scored, board: Board, cell: Mapping[str, Any]) -> Records:
    """The analysis of a submission's chosen treatment on a board, by axis and split."""
    wanted = (board.dataset, board.metric.name, cell["treatment"])
    return {
        (record["axis"], record["split"]): record
        for record in scored.analysis
        if (record["dataset"], record["metric"], record["treatment"]) == wanted
    }


def _entry(scored: Scored, cell: Mapping[str, Any], listed: list[Run], compared: tuple[Exponent, ...]) -> Entry:
    known: dict[str, Any] = {name: None if pd.isna(value) else value for name, value in cell.items() if name != "run"}
    mine = {run.removeprefix(f"{scored.slug}/") for run in cell["run"]}
    return Entry(
        slug=scored.slug,
        submission=scored.submission,
        status=scored.status,
        size=known["size"],
        data=known["data"],
        seeds=len(mine),
        chosen_by=known["chosen_by"],
        params=_whole(known["params"]),
        params_body=_whole(known["params_body"]),
        flops=known["flops"],
        seconds=known["seconds"],
        peak_memory=known["peak_memory"],
        device=known["device"],
        shared=None if known["shared"] is None else bool(known["shared"]),
        scores={},
        overall=None,
        rank=None,
        runs_ok=known["ended"],
        runs=len(listed),
        symmetry=_symmetry([run for run in listed if run.run in mine]),
        exponents=compared,
        flags=scored.flags,
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _symmetry(runs: list[Run]) -> dict[str, float]:
    """Mean over runs of each symmetry error that was reported in distribution."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for metric, value in run.reported.get("test", {}).items():
            if metric.startswith("symmetry_"):
                found[metric].append(value)
    return {metric: sum(values) / len(values) for metric, values in sorted(found.items())}


def points_of(rows: pd.DataFrame) -> tuple[RunPoint, ...]:
    """Every run on every split, with the 95 % interval of its samples."""
    half = NORMAL_95 * rows.error
    frame = rows.assign(low=(rows.value - half).clip(lower=0.0), high=rows.value + half)
    columns = ["slug", "run", "split", "size", "params", "data", "flops", "value", "low", "high"]
    lists = (frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in columns)
    return tuple(
        RunPoint(slug, run, split, size, int(params), data, flops, Estimate(value, low, high))
        for slug, run, split, size, params, data, flops, value, low, high in zip(*lists, strict=True)
    )
