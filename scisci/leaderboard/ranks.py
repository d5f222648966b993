"""From the scores of all submissions to boards: of each one configuration, its errors, gaps and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.metrics import metric as find_metric
from scisci.leaderboard.board import Board, Entry, Estimate, Score, Status
from scisci.leaderboard.choosing import CELL, choose
from scisci.leaderboard.config import HEADLINES, Config, DatasetConfig, headlines
from scisci.leaderboard.entries import entries_of, points_of
from scisci.leaderboard.estimates import Errors, ranks
from scisci.leaderboard.scores import Scored
from scisci.report.study import order_splits

IDENTITY = "test"
_SEALED = "sealed "  # before the name of a split: its sealed errors, as a column beside the public ones
_ERRORS = ["slug", "cell", "chosen", "run", "split", "value", "error"]


def boards(
    scored: Iterable[Scored],
    config: Config | None = None,
    reproduced: Mapping[str, str] | None = None,
    reference: str | None = None,
) -> list[Board]:
    """A board for every data set and ranked error that submissions were scored on.

    `reproduced` maps the slug of each reproduced submission to its digest at that time; `reference` is the slug to
    compare with where the configuration names none. Errors: `UserError` for a reference that was not submitted and for
    scores without the error of a trivial predictor.
    """
    config = config or Config()
    submitted = _with_status(scored, reproduced or {})
    if reference is not None and reference not in submitted:
        raise unknown_name("reference", reference, submitted)
    public = _frame([one.table for one in submitted.values()])
    public["samples"] = _covered(public, submitted)
    horizons = {f"{slug}/{run.run}": run.horizon for slug, one in submitted.items() for run in one.submission.runs}
    public["horizon"] = [horizons[run] or 0 for run in public.run]
    sealed = _frame([one.sealed_table for one in submitted.values() if one.sealed_table is not None])
    found = []
    for dataset, rows in public.groupby("dataset"):
        if (named := config.of(dataset).reference) is not None and named not in set(rows.slug):
            raise unknown_name(f"reference of {dataset!r}", named, rows.slug)
    for (dataset, domain, horizon), rows in public.groupby(["dataset", "domain", "horizon"]):
        setup = config.of(dataset)
        for metric in headlines(domain, setup.metric):
            mine = rows[rows.metric == metric]
            if mine.split.map(_shown).any():
                compared = next((one for one in (setup.reference, reference) if one in set(mine.slug)), None)
                board = _empty(setup, dataset, domain, horizon or None, metric, mine, compared)
                hidden = sealed[(sealed.dataset == dataset) & (sealed.metric == metric)]
                found.append(_filled(board, mine, hidden, submitted))
    return found


def _with_status(scored: Iterable[Scored], reproduced: Mapping[str, str]) -> dict[str, Scored]:
    """By slug; submissions that are still what was reproduced, and those of older scoring, are marked as such."""
    submitted = {one.slug: one for one in scored}
    newest = max((one.scoring_version for one in submitted.values()), default=0)
    for slug, one in submitted.items():
        status: Status = "reproduced" if reproduced.get(slug) == one.digest else one.status
        old = f"scored by version {one.scoring_version} of the scoring, others by {newest}; its errors may differ"
        flags = one.flags if one.scoring_version == newest else (*one.flags, old)
        submitted[slug] = replace(one, status=status, flags=flags)
    return submitted


def _frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """The ranked errors of runs that ended well, with the columns `slug` and `error` (the standard error)."""
    if not tables:
        return pd.DataFrame(columns=["slug", "run", "dataset", "domain", "metric", "split", "value", "error"])
    ranked = pa.array(sorted({metric for of_domain in HEADLINES.values() for metric in of_domain}))
    kept = [table.filter(pc.is_in(table["metric"], ranked)) for table in tables]
    frame = pa.concat_tables(kept).to_pandas().rename(columns={"architecture": "slug"})
    return frame.assign(error=frame.se_groups.fillna(frame.se))


def _covered(rows: pd.DataFrame, submitted: Mapping[str, Scored]) -> list[int]:
    """How many samples of its split each row is of. The table's own count may be of windows of a series."""
    samples = {
        (f"{slug}/{run.run}", split): count
        for slug, one in submitted.items()
        for run in one.submission.runs
        for split, count in run.splits.items()
    }
    return [samples[key] for key in zip(rows.run, rows.split, strict=True)]


def _shown(split: str) -> bool:
    return split == IDENTITY or split.startswith("ood_")


def _empty(
    setup: DatasetConfig,
    dataset: str,
    domain: str,
    horizon: int | None,
    metric: str,
    rows: pd.DataFrame,
    reference: str | None,
) -> Board:
    """The board without its entries. Its splits are in reading order, the in-distribution one even if none has it."""
    shown = rows[rows.split.map(_shown)]
    severities = {IDENTITY: np.nan} | dict(zip(shown.split, shown.severity, strict=True))
    splits = order_splits(pd.DataFrame({"split": list(severities), "severity": list(severities.values())}))
    parts = [dataset, *[str(horizon)] * bool(horizon), *[metric.replace("_", "-")] * (metric != headlines(domain)[0])]
    title = setup.title or dataset
    return Board(
        name="-".join(parts),
        dataset=dataset,
        title=f"{title}, {horizon} steps ahead" if horizon else title,
        domain=domain,
        horizon=horizon,
        metric=find_metric(metric),
        splits=tuple(split.name for split in splits),
        reference=reference,
        compute=setup.compute,
        entries=(),
        points=(),
    )


def _filled(board: Board, rows: pd.DataFrame, sealed: pd.DataFrame, submitted: Mapping[str, Scored]) -> Board:
    """The board with its entries, best first, and the points of all runs."""
    configurations = choose(rows)
    shown = rows[rows.split.isin(board.splits)].merge(configurations.reset_index(), on="slug", suffixes=("", "_chosen"))
    shown["chosen"] = np.all([shown[name] == shown[f"{name}_chosen"] for name in CELL], axis=0)
    shown["cell"] = shown.groupby(list(CELL)).ngroup()
    hidden = sealed.merge(shown.drop_duplicates("run")[["run", "cell", "chosen"]], on="run")
    hidden["split"] = _SEALED + hidden.split
    errors = Errors.of(
        pd.concat([part[_ERRORS] for part in (shown, hidden) if len(part)]),
        configurations.index,
        [*board.splits, *(_SEALED + split for split in board.splits)],
    )
    samples = shown[shown.chosen].groupby(["slug", "split"]).samples.min().unstack("split")
    samples = samples.reindex(index=configurations.index, columns=board.splits)
    trivial = _trivial(board, samples, submitted)
    whole = samples.eq(samples.max())  # entries that cover fewer samples than the most are shown, not ranked
    scores = {split: _scores(split, errors, samples[split], trivial[split], whole[split]) for split in board.splits}
    overall = errors.product(dict.fromkeys(board.splits, 1 / len(board.splits)))
    overall = overall.div(np.exp(np.log(trivial).mean(axis=1, skipna=False)), axis=0)
    estimate, rank = _estimates(overall), _ranks(overall, whole.all(axis=1))
    entries = [
        replace(
            one,
            scores={split: of_split[one.slug] for split, of_split in scores.items() if one.slug in of_split},
            overall=estimate.get(one.slug),
            rank=rank.get(one.slug),
        )
        for one in entries_of(board, rows, configurations, submitted)
    ]
    return replace(board, entries=tuple(sorted(entries, key=_best_first)), points=points_of(shown))


def _trivial(board: Board, samples: pd.DataFrame, submitted: Mapping[str, Scored]) -> pd.DataFrame:
    """The error of a trivial predictor [slug, split] on the samples that were predicted; NaN where none were."""
    found = pd.DataFrame(np.nan, samples.index, samples.columns)
    for slug, covered in samples.to_dict("index").items():
        for split, count in covered.items():
            if count > 0:
                key = (board.dataset, str(split), int(count))
                value = submitted[slug].trivial.get(key, {}).get(board.metric.name, 0.0)
                if value <= 0:
                    raise UserError(
                        f"the scores of {slug!r} lack the {board.metric.name} of a trivial predictor on {split!r} of"
                        f" {board.dataset!r}; write them again with 'scisci leaderboard score'"
                    )
                found.at[slug, split] = value
    return found


def _scores(split: str, errors: Errors, samples: pd.Series, trivial: pd.Series, whole: pd.Series) -> dict[str, Score]:
    """The score of every entry that predicted a split."""
    public = errors.on(split)
    rank = _ranks(public, whole)
    gap = {} if split == IDENTITY else _estimates(errors.product({split: 1.0, IDENTITY: -1.0}))
    sealed = _estimates(errors.on(_SEALED + split))
    sealed_gap = _estimates(errors.product({_SEALED + split: 1.0, split: -1.0}))
    return {
        slug: Score(
            split=split,
            error=error,
            normalised=error.value / float(trivial[slug]),
            rank=rank.get(slug),
            samples=int(samples[slug]),
            gap=gap.get(slug),
            sealed=sealed.get(slug),
            sealed_gap=sealed_gap.get(slug),
        )
        for slug, error in _estimates(public).items()
    }


def _estimates(frame: pd.DataFrame) -> dict[str, Estimate]:
    """By slug, from the columns `value`, `low` and `high`; what does not exist is left out, or None."""
    rows = zip(frame.index, *(frame[name].tolist() for name in ("value", "low", "high")), strict=True)
    number = lambda end: end if np.isfinite(end) else None
    return {slug: Estimate(value, number(low), number(high)) for slug, value, low, high in rows if np.isfinite(value)}


def _ranks(frame: pd.DataFrame, whole: pd.Series) -> dict[str, int]:
    """Ranks by slug of those that cover the `whole` split; an interval that does not exist is its value alone."""
    ranked = frame[whole & np.isfinite(frame.value)]
    low, high = (ranked[end].fillna(ranked.value).to_numpy() for end in ("low", "high"))
    return dict(zip(ranked.index, ranks(low, high).tolist(), strict=True))


def _best_first(entry: Entry) -> tuple[Any, ...]:
    overall = np.inf if entry.overall is None else entry.overall.value
    inside = entry.scores[IDENTITY].normalised if IDENTITY in entry.scores else np.inf
    return (np.inf if entry.rank is None else entry.rank, overall, inside, entry.slug)
