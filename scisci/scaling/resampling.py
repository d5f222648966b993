"""Bootstrap of a fit: thousands of refits at once, resampling whole runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.audit import judge
from scisci.scaling.clusters import LEVEL
from scisci.scaling.fitting import Fit
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
        tail = (1.0 - level) / 2
        low, high = np.quantile(values[np.isfinite(values)], [tail, 1.0 - tail])
        return float(low), float(high)


def bootstrap(fit: Fit, resamples: int = 4000, seed: int = REFERENCE_SEED) -> Bootstrap:
    """Draw runs with replacement and refit, `resamples` times.

    Resamples with fewer distinct x than parameters cannot be fitted and are drawn again; `usable` says how
    often a draw could be used. Errors: `UserError` where fewer than half could.
    """
    if resamples < _MIN_REFITS:
        raise UserError(f"{resamples} bootstrap resamples are too few for a 95 % interval; use 1000 or more")
    data, law = fit.points, fit.law
    runs = int(data.cluster.max()) + 1
    draw = np.random.RandomState(seed)  # its stream never changes between versions of numpy
    _, kind = np.unique(np.stack(data.x, 1), axis=0, return_inverse=True)
    needed = min(len(law.names), int(kind.max()) + 1)
    kept: list[Array] = []
    total = drawn = 0
    while total < resamples:
        size = min(resamples - total, max(1, _CHUNK // len(data)))
        counts = _counts(draw.choice(runs, (size, runs)), runs)[:, data.cluster]
        counts = counts[_distinct(counts, kind.reshape(-1)) >= needed]
        start = np.broadcast_to(fit.internal, (len(counts), len(law.names)))
        if len(counts):
            found = solve(law, data.x, data.log_y, start, weight=fit.weight * counts, delta=fit.delta, tolerance=1e-9)
            kept.append(found.internal)
        total, drawn = total + len(counts), drawn + size
        if total < drawn / 2:
            raise UserError(
                f"fewer than half of the resamples hold {needed} distinct x; these points are too few to "
                "bootstrap, so use --bootstrap 0 and the profile interval"
            )
    return Bootstrap(law, law.natural(np.concatenate(kept)), total / drawn)


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
