"""What the leaderboard shows: one board per data set, an entry per submission, and every number with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scisci.contracts.metrics import Metric
from scisci.leaderboard.submission import Submission

Status = Literal["self-reported", "recomputed", "reproduced"]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; an end that does not exist is None."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Exponent:
    """How an error falls along one axis on one split, by the power law without an offset.

    `estimate` is None where the fit is not identified, and `reason` says why. `against_reference` compares with the
    board's reference model on the same axis and split: "slope" where the exponents differ, "offset" where they do not
    but the level does, "none" where neither does, "undecided" where the fits do not tell.
    """

    axis: Literal["params", "data", "flops"]
    split: str
    estimate: Estimate | None
    verdict: str
    reason: str = ""
    fixed: str = ""
    """what is held constant along the axis, or how the runs of the compute frontier were chosen"""
    held_out: float | None = None
    """rms of ln predicted - ln observed at the largest scale, which the fit had not seen"""
    forecast: Estimate | None = None
    """error of one further run at the board's compute (axis "flops" alone)"""
    forecast_reason: str = ""
    """why there is no forecast, where one was asked for"""
    against_reference: Literal["slope", "offset", "none", "undecided", "is the reference"] = "undecided"
    against_reference_words: str = ""


@dataclass(frozen=True)
class Score:
    """The error of an entry's chosen configuration on one split; means over its seeds."""

    split: str
    error: Estimate
    normalised: float
    """error over that of a trivial predictor, which no submission moves"""
    rank: int | None
    """1 + the entries whose whole interval lies below; None for an entry that covers fewer samples than others"""
    samples: int
    gap: Estimate | None = None
    """OOD over ID error (None for the ID split)"""
    sealed: Estimate | None = None
    """error on the sealed test set of the same split"""
    sealed_gap: Estimate | None = None
    """sealed over public error: above 1, the public test set may have been fitted"""


@dataclass(frozen=True)
class Entry:
    """One submission on one data set.

    Its errors are those of one configuration (size x data), chosen on ID validation where that was predicted, else
    the one with the most training compute; `chosen_by` says which.
    """

    slug: str
    submission: Submission
    status: Status
    size: str
    data: int
    seeds: int
    chosen_by: str
    params: int | None
    """None where no run ended well; then `scores` is empty"""
    params_body: int | None
    flops: float | None
    seconds: float
    peak_memory: float | None
    device: str
    shared: bool | None
    """whether other processes used the device while any of its runs trained, so that `seconds` is no measure of speed;
    None where that is not known"""
    scores: Mapping[str, Score]
    overall: Estimate | None
    """geometric mean of normalised errors over the splits; None where one is missing"""
    rank: int | None
    runs_ok: int
    runs: int
    """all that the submission lists on this data set, failed ones included"""
    symmetry: Mapping[str, float] = field(default_factory=dict)
    """metric → symmetry error on the ID split, as its authors reported it"""
    exponents: tuple[Exponent, ...] = ()
    flags: tuple[str, ...] = ()

    def exponent(self, axis: str, split: str) -> Exponent | None:
        """The exponent along an axis on a split, where one was looked for."""
        return next((one for one in self.exponents if (one.axis, one.split) == (axis, split)), None)


@dataclass(frozen=True)
class RunPoint:
    """One run on one split, as charts draw it."""

    slug: str
    run: str
    split: str
    size: str
    params: int
    data: int
    flops: float | None
    error: Estimate


@dataclass(frozen=True)
class Board:
    """All entries on one target of one data set, best first; `splits` begin with the in-distribution one.

    `name` is unique among boards: the data set's, with the `horizon` over which series are forecast, and the metric's
    where it is another target than the first.
    """

    name: str
    dataset: str
    title: str
    domain: str
    horizon: int | None
    metric: Metric
    splits: tuple[str, ...]
    reference: str | None
    """slug of the model that the others' scaling is compared with"""
    compute: float | None
    """training FLOPs at which errors are forecast"""
    entries: tuple[Entry, ...]
    points: tuple[RunPoint, ...]
