"""Bootstrap of a fit: thousands of refits at once, resampling whole runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.audit import judge
from scisci.scaling.fitting import Fit
from scisci.scaling.law import Array, Law
from scisci.scaling.profile import LEVEL, Interval
from scisci.scaling.solve import solve

_MIN_REFITS = 100
_FEW_RUNS = 40


@dataclass(frozen=True)
class Bootstrap:
    """Refits on resampled runs: natural `parameters` [resamples, p] and the share that could be fitted."""

    law: Law
    parameters: Array
    usable: float

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter. It under-covers below some 30 runs; see `Fit.intervals`."""
        tail = (1.0 - level) / 2
        low, high = np.quantile(self.parameters[:, self.law.index(name)], [tail, 1.0 - tail])
        return float(low), float(high)


def bootstrap(fit: Fit, resamples: int = 4000, seed: int = 0) -> Bootstrap:
    """Draw runs with replacement and refit, `resamples` times.

    Resamples with fewer distinct x than parameters cannot be fitted and are drawn again; `usable` says how
    often a draw could be used. Errors: `UserError` where fewer than half could.
    """
    if resamples < _MIN_REFITS:
        raise UserError(f"{resamples} bootstrap resamples are too few for a 95 % interval; use 1000 or more")
    data, law = fit.points, fit.law
    counts, usable = resample_counts(data.cluster, np.stack(data.x, 1), len(law.names), resamples, seed)
    start = np.broadcast_to(fit.internal, (resamples, len(law.names)))
    found = solve(law, data.x, data.log_y, start, weight=fit.weight * counts, delta=fit.delta)
    return Bootstrap(law, law.natural(found.internal), usable)


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
    changed = replace(fit, intervals=intervals, interval=interval)
    verdict, reasons = judge(changed, len(np.unique(np.stack(fit.points.x, 1), axis=0)))
    return replace(changed, audit=replace(fit.audit, verdict=verdict, reasons=tuple(reasons)))


def resample_counts(
    cluster: np.ndarray, x: Array, needed: int, resamples: int, seed: int
) -> tuple[Array, float]:
    """How often each point is drawn [resamples, n], and the share of draws with `needed` distinct x."""
    rng = np.random.default_rng(seed)
    groups = int(cluster.max()) + 1
    _, kind = np.unique(x, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    member = np.zeros((len(cluster), int(kind.max()) + 1))
    member[np.arange(len(cluster)), kind] = 1.0
    kept: list[Array] = []
    total = drawn = 0
    while total < resamples:
        counts = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=resamples)[:, cluster].astype(
            float
        )
        enough = ((counts @ member) > 0).sum(1) >= needed
        kept.append(counts[enough])
        total, drawn = total + int(enough.sum()), drawn + resamples
        if total < drawn / 2:
            raise UserError(
                f"fewer than half of the resamples hold {needed} distinct x; these points are too few to "
                "bootstrap, so use --bootstrap 0 and the profile interval"
            )
    return np.concatenate(kept)[:resamples], total / drawn
