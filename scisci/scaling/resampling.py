"""Bootstrap of a fit: thousands of refits at once, resampling whole runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.audit import judge
from scisci.scaling.clusters import LEVEL
from scisci.scaling.fitted import Fit
from scisci.scaling.intervals import Interval
from scisci.scaling.law import Array, Law
from scisci.scaling.solve import solve

_MIN_REFITS = 100
_FEW_RUNS = 40
_CHUNK = 4_000_000  # resampled points held at a time
REFERENCE_SEED = 42  # the draws of Besiroglu et al. 2024, so that their intervals come out to the digit


@dataclass(frozen=True)
class Bootstrap:
    """Refits on resampled runs: natural `parameters` [resamples, p] and the share that could be fitted."""

    law: Law
    parameters: Array
    usable: float

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter. It under-covers below some 30 runs; see `Fit.intervals`."""
        return self._percentiles(self.parameters[:, self.law.index(name)], level)

    def derived(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a derived quantity."""
        with np.errstate(all="ignore"):
            named = dict(zip(self.law.names, self.parameters.T, strict=True))
            return self._percentiles(self.law.derived[name](named), level)

    @staticmethod
    def _percentiles(values: Array, level: float) -> tuple[float, float]:
        if np.isfinite(values).mean() < 0.5:
            return np.nan, np.nan
        tail = (1.0 - level) / 2
        low, high = np.quantile(values[np.isfinite(values)], [tail, 1.0 - tail])
        return float(low), float(high)


def bootstrap(
    fit: Fit, resamples: int = 4000, seed: int = REFERENCE_SEED, noise: Literal["runs", "seeds"] = "runs"
) -> Bootstrap:
    """Refit `resamples` times on resampled runs, or with "seeds" on the same design with fresh seed noise.

    "runs" draws whole runs with replacement; draws with fewer distinct x than parameters cannot be fitted and
    are drawn again, and `usable` says how often a draw could be used (`UserError` below half). "seeds" adds
    to the mean ln y of each x a deviation drawn from all runs' deviations from theirs: what other seeds
    would give, without the law's misfit; some x needs several runs.
    """
    if resamples < _MIN_REFITS:
        raise UserError(f"{resamples} bootstrap resamples are too few for a 95 % interval; use 1000 or more")
    draw = np.random.RandomState(seed)  # its stream never changes between versions of numpy
    internal, usable = (_resample_runs if noise == "runs" else _resample_seeds)(fit, resamples, draw)
    return Bootstrap(fit.law, fit.law.natural(internal), usable)


def paired_bootstrap(
    a: Fit, b: Fit, resamples: int = 4000, seed: int = REFERENCE_SEED, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the exponent of `a` minus that of `b`; runs that both fits hold are drawn together.

    Runs of one fit only are drawn within that fit. NaN where fewer than half of the draws can be fitted; it is too
    narrow below some 30 runs, where `difference` has the interval to quote.
    """
    draw = np.random.RandomState(seed)
    both = set(a.points.runs) & set(b.points.runs)
    strata = [sorted(both), sorted(set(a.points.runs) - both), sorted(set(b.points.runs) - both)]
    drawn = [_counts(draw.choice(len(s), (resamples, len(s))), len(s)) for s in strata if s]
    column = {run: number for number, run in enumerate(run for stratum in strata for run in stratum)}
    counts = np.concatenate(drawn, axis=1)
    weights = [counts[:, [column[run] for run in fit.points.runs]][:, fit.points.cluster] for fit in (a, b)]
    usable = np.ones(resamples, dtype=bool)
    for fit, weight in zip((a, b), weights, strict=True):
        kind = _kinds(fit)
        usable &= _distinct(weight, kind) >= min(len(fit.law.names), int(kind.max()) + 1)
    if usable.mean() < 0.5:
        return np.nan, np.nan
    refits = [
        fit.law.natural(_refit(fit, fit.points.log_y, fit.weight * weight[usable]))[:, fit.law.index(fit.law.exponent)]
        for fit, weight in zip((a, b), weights, strict=True)
    ]
    return Bootstrap._percentiles(refits[0] - refits[1], level)


def _kinds(fit: Fit) -> np.ndarray:
    """The number [n] of each point's x among the distinct ones."""
    _, kind = np.unique(np.stack(fit.points.x, 1), axis=0, return_inverse=True)
    return kind.reshape(-1)


def _resample_runs(fit: Fit, resamples: int, draw: np.random.RandomState) -> tuple[Array, float]:
    data, law, kind = fit.points, fit.law, _kinds(fit)
    runs = int(data.cluster.max()) + 1
    needed = min(len(law.names), int(kind.max()) + 1)
    kept: list[Array] = []
    total = drawn = 0
    while total < resamples:
        size = min(resamples - total, max(1, _CHUNK // len(data)))
        counts = _counts(draw.choice(runs, (size, runs)), runs)[:, data.cluster]
        counts = counts[_distinct(counts, kind) >= needed]
        if len(counts):
            kept.append(_refit(fit, data.log_y, fit.weight * counts))
        total, drawn = total + len(counts), drawn + size
        if total < drawn / 2:
            raise UserError(
                f"fewer than half of the resamples hold {needed} distinct x; these points are too few to "
                "bootstrap, so use --bootstrap 0 and the profile interval"
            )
    return np.concatenate(kept), total / drawn


def _resample_seeds(fit: Fit, resamples: int, draw: np.random.RandomState) -> tuple[Array, float]:
    data, kind = fit.points, _kinds(fit)
    if len(data.runs) != len(data):
        raise UserError("the seed-noise bootstrap needs one row per run; leave out --cluster or average the rows")
    mean = (np.bincount(kind, data.log_y) / np.bincount(kind))[kind]
    free = len(data) - (int(kind.max()) + 1)
    if free < 1:
        raise UserError("the seed-noise bootstrap needs several runs at some x; add seeds")
    # only x with several runs tell about seeds; their deviations are short by the means taken out
    several = np.bincount(kind)[kind] > 1
    deviation = (data.log_y - mean)[several] * np.sqrt(several.sum() / free)
    kept = []
    for begin in range(0, resamples, max(1, _CHUNK // len(data))):
        size = min(resamples - begin, max(1, _CHUNK // len(data)))
        kept.append(_refit(fit, mean + draw.choice(deviation, (size, len(data))), fit.weight))
    return np.concatenate(kept), 1.0


def _refit(fit: Fit, log_y: Array, weight: Array) -> Array:
    """Internal parameters [resamples, p] of refits from the optimum; targets or weights are [resamples, n]."""
    size = max(log_y.shape[0] if log_y.ndim == 2 else 0, weight.shape[0] if weight.ndim == 2 else 0)
    start = np.broadcast_to(fit.internal, (size, len(fit.internal)))
    return solve(fit.law, fit.points.x, log_y, start, weight=weight, delta=fit.delta, tolerance=1e-9).internal


def _counts(picks: np.ndarray, runs: int) -> Array:
    """How often each run is drawn [resamples, runs] from its picks [resamples, runs]."""
    flat = picks + runs * np.arange(len(picks))[:, None]
    return np.bincount(flat.ravel(), minlength=runs * len(picks)).reshape(-1, runs).astype(float)


def _distinct(counts: Array, kind: np.ndarray) -> np.ndarray:
    """Number of distinct x in every resample."""
    order = np.argsort(kind, kind="stable")
    starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
    return (np.add.reduceat(counts[:, order], starts, axis=1) > 0).sum(1)


def quote(fit: Fit, refits: Bootstrap) -> Fit:
    """The fit with the interval that should be quoted: of a robust loss the percentile bootstrap over runs.

    Least squares keeps its profile interval, which is the honest one where runs are few.
    """
    if np.isinf(fit.delta):
        return fit
    intervals = {name: refits.interval(name) for name in fit.law.names}
    runs = len(fit.points.runs)
    words = f"percentile bootstrap, {len(refits.parameters)} resamples of {runs} whole runs"
    if runs < _FEW_RUNS:
        words += "; with so few runs it is narrower than its 95 % says, so fit with --delta inf"
    interval = Interval("bootstrap percentile", LEVEL, fit.scale.dof, words)
    derived = {name: (value, *refits.derived(name)) for name, (value, _, _) in fit.derived.items()}
    changed = replace(fit, intervals=intervals, interval=interval, derived=derived)
    verdict, reasons = judge(changed, len(np.unique(np.stack(fit.points.x, 1), axis=0)))
    return replace(changed, audit=replace(fit.audit, verdict=verdict, reasons=tuple(reasons)))
