"""Reproduction: a maintainer trained a submission's models again, and here the errors of both are held together.

Runs are pooled over seeds at equal data set, treatment, size and amount of data, on the same test samples. With K and L
seeds, the difference of the means of ln error has the standard error S sqrt(1/K + 1/L), where S is the standard
deviation of ln error over the seeds of one configuration, pooled over all configurations of both on the same split. It
is Student's with the degrees of freedom of S. Where nothing was trained with two seeds, the errors of sampling of both
stand in its place, and a second seed may well differ by more. All intervals hold together with 95 % (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import t as student

from scisci.contracts.errors import UserError
from scisci.contracts.files import write_text
from scisci.data.store import Store
from scisci.leaderboard.choosing import CELL, choose
from scisci.leaderboard.config import HEADLINES
from scisci.leaderboard.reading import open_listed
from scisci.leaderboard.scoring import SCORING_VERSION, digest, score

SCHEMA_VERSION: Literal[1] = 1
LEVEL = 0.95
LEAST = 1e-30
# An agreement that an error twice as large would share says nothing.
WIDEST = np.log(2.0)
FLOPS_TOLERANCE = 0.01
CELLS = ["dataset", *CELL]
MEASURED = ["dataset", "metric", "split"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Comparison(_Part):
    """One configuration on one split: mean errors of both, and the ratio again / submitted with its joint interval.

    The ratio is that of geometric means over seeds.
    """

    dataset: str
    treatment: str
    size: str
    data: int
    metric: str
    split: str
    submitted: float
    again: float
    seeds: tuple[int, int]
    ratio: float
    low: float | None
    high: float | None
    verdict: Literal["agrees", "differs", "cannot be told"]

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        where = f"{self.metric} on {self.split} of {self.dataset}, {self.size} with {self.data} samples"
        return f"{where}: {self.ratio:.3g}{interval} times the submitted error; {self.verdict}"


class Record(_Part):
    """What holding a retrained model against a submission gave; `reasons` say why it is not reproduced, if it is not.

    Reproduced is what was retrained: the configurations that are ranked, at least. `digest` is that of the submission.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    slug: str
    digest: str
    again: str
    scoring_version: int
    verdict: Literal["reproduced", "not reproduced", "undecided"]
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def reproduce(folder: Path, again: Path, out: Path, store_of: Callable[[str], Store] = open_listed) -> Record:
    """Hold the submission `again` of a maintainer's own runs against the one in `folder`; write `<out>/<slug>.json`.

    Errors are recomputed from the predictions of both. `UserError` where they have no configuration in common.
    """
    digests = digest(folder), digest(again)
    if digests[0] == digests[1]:
        raise UserError(f"{again} is the submission itself; give one that was packed from runs of your own")
    submitted, retrained = score(folder, store_of=store_of), score(again, store_of=store_of)
    comparisons = compare(submitted, retrained)
    differing = [*costs(submitted, retrained), *(str(one) for one in comparisons if one.verdict == "differs")]
    open_questions = [*not_retrained(submitted, comparisons)]
    open_questions += [str(one) for one in comparisons if one.verdict == "cannot be told"]
    record = Record(
        slug=folder.resolve().name,
        digest=digests[0],
        again=digests[1],
        scoring_version=SCORING_VERSION,
        verdict="not reproduced" if differing else "undecided" if open_questions else "reproduced",
        reasons=(*differing, *open_questions),
        comparisons=comparisons,
    )
    write_text(out / f"{record.slug}.json", record.model_dump_json(indent=1) + "\n")
    return record


def reproduced(folder: Path) -> dict[str, str]:
    """Slug → digest, as it was then, of the submissions whose records say that they were reproduced."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is not a record of 'scisci leaderboard reproduce'; write it again") from error
        if record.verdict == "reproduced":
            found[record.slug] = record.digest
    return found


def compare(submitted: pa.Table, again: pa.Table) -> tuple[Comparison, ...]:
    """The ranked errors of all configurations that both results tables have, each with its verdict."""
    rows = pd.concat([_ranked(submitted).assign(of=0), _ranked(again).assign(of=1)])
    # Means over other samples are of something else.
    cell = [*CELLS, "metric", "split", "n"]
    rows["log"] = np.log(rows.value.clip(lower=LEAST))
    found = rows.groupby([*cell, "of"])
    means = found.agg(value=("value", "mean"), log=("log", "mean"), error=("error", "mean"), seeds=("value", "size"))
    means = means.unstack("of").dropna()
    if means.empty or 1 not in means.value:
        raise UserError(
            "nothing was retrained at a size and an amount of data that were submitted; retrain one that is"
        )
    rows["square"] = (rows.log - found.log.transform("mean")).pow(2)
    seeds = rows.groupby(MEASURED).square.sum().to_frame("squares")
    seeds["dof"] = (found.log.count() - 1).clip(lower=0).groupby(MEASURED).sum()
    seeds = seeds.reindex(pd.MultiIndex.from_frame(means.index.to_frame()[MEASURED]))
    return tuple(_compared(means, seeds.dof.to_numpy(), seeds.squares.to_numpy()))


def _ranked(table: pa.Table) -> pd.DataFrame:
    rows = table.to_pandas()
    ranked = [metric for of_domain in HEADLINES.values() for metric in of_domain]
    rows = rows[rows.metric.isin(ranked) & (rows.status == "ok")].copy()
    rows["error"] = (rows.se_groups.fillna(rows.se) / rows.value).fillna(np.inf)
    return rows


def _compared(means: pd.DataFrame, dof: np.ndarray, squares: np.ndarray) -> Iterator[Comparison]:
    """`means` [configuration on a split] of both; spread over seeds by degrees of freedom and sums of squares of it."""
    value, log, error, count = (means[name].to_numpy() for name in ("value", "log", "error", "seeds"))
    with np.errstate(divide="ignore", invalid="ignore"):
        over_seeds = np.sqrt(squares / dof * (1 / count).sum(axis=1))
        standard = np.where(dof > 0, over_seeds, np.hypot(*error.T))
        half = student.ppf(1 - (1 - LEVEL) / 2 / len(means), np.where(dof > 0, dof, np.inf)) * standard
    apart = np.diff(log)[:, 0]
    ratio, low, high = np.exp([apart, apart - half, apart + half])
    for k, key in enumerate(means.index.to_frame().to_dict("records")):
        bounded = bool(np.isfinite(half[k]))
        agrees = "agrees" if half[k] <= WIDEST else "cannot be told"
        yield Comparison(
            **{name: key[name] for name in (*CELLS, "metric", "split")},
            submitted=value[k, 0],
            again=value[k, 1],
            seeds=tuple(count[k].astype(int).tolist()),
            ratio=ratio[k],
            low=low[k] if bounded else None,
            high=high[k] if bounded else None,
            verdict=agrees if low[k] <= 1 <= high[k] or not bounded else "differs",
        )


def costs(submitted: pa.Table, again: pa.Table) -> Iterator[str]:
    """Where parameters or training FLOPs, which no predictions tell, are others than were submitted; or runs failed."""
    theirs, ours = (table.to_pandas().drop_duplicates("run").groupby(CELLS) for table in (submitted, again))
    ended = [cells.status.agg(lambda status: (status == "ok").any()) for cells in (theirs, ours)]
    for cell in ended[0].index.intersection(ended[1].index):
        name = "{0}: {2} with {3} samples".format(*cell)
        if ended[0][cell] and not ended[1][cell]:
            yield f"{name} did not end well when it was trained again"
        for what, tolerance in (("params", 0.0), ("flops", FLOPS_TOLERANCE)):
            one, other = (float(cells[what].mean()[cell]) for cells in (theirs, ours))
            if abs(one - other) > tolerance * one:
                yield f"{name} has {other:.6g} {what}, but {one:.6g} were submitted"


def not_retrained(submitted: pa.Table, comparisons: tuple[Comparison, ...]) -> Iterator[str]:
    """Of each data set and ranked error, the configuration that is ranked, where it was not compared."""
    compared = {(one.dataset, one.metric, one.treatment, one.size, one.data) for one in comparisons}
    for (dataset, metric), rows in _ranked(submitted).rename(columns={"architecture": "slug"}).groupby(MEASURED[:2]):
        (chosen,) = choose(rows)[list(CELL)].to_dict("records")
        if (dataset, metric, *chosen.values()) not in compared:
            yield f"{dataset}: {chosen['size']} with {chosen['data']} samples, which is ranked, was not trained again"
