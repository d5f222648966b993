"""Kaplan's step law from runs at any batch size, constant by constant (Su et al. 2024, arXiv:2403.06563)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.law import Array

_PER_CURVE = 64  # points of a training curve that the joint fit uses


@dataclass(frozen=True)
class Contour:
    """What it takes to reach one loss: fewest steps S_min, fewest samples E_min, and their ratio B_crit."""

    loss: float
    steps: float
    samples: float

    @property
    def batch(self) -> float:
        """The critical batch size, E_min / S_min."""
        return self.samples / self.steps


def minimum_steps(steps: Array, batch: Array, loss: Array, critical: Fit) -> Array:
    """S_min = S / (1 + B_crit(L) / B): the steps a run would have needed at infinite batch size.

    `critical` is a fit of the law "critical_batch". Kaplan et al. 2020, eq. 5.4.
    """
    return np.asarray(steps, float) / (1.0 + critical.predict(loss) / np.asarray(batch, float))


def contours(steps: Array, batch: Array, loss: Array, levels: Array) -> list[Contour]:
    """S_min and E_min at each loss level from curves at several batch sizes, all of one model.

    At a level, every batch size B reaches it after S(B) steps (interpolated in logarithms along its curve);
    (S/S_min - 1)(E/E_min - 1) = 1 with E = B S is linear in 1/B: S = S_min + E_min / B.
    """
    found = []
    for level in np.asarray(levels, float):
        inverse, needed = [], []
        for size in np.unique(batch):
            at = batch == size
            order = np.argsort(steps[at])
            s, best = steps[at][order], np.minimum.accumulate(loss[at][order])
            if best[-1] <= level < best[0]:
                needed.append(np.exp(np.interp(-np.log(level), -np.log(best), np.log(s))))
                inverse.append(1.0 / size)
        if len(needed) < 2:
            continue
        # relative errors: small and large batches differ by orders in S
        design = np.stack([np.ones(len(needed)), inverse], 1) / np.array(needed)[:, None]
        (fewest, samples), *_ = np.linalg.lstsq(design, np.ones(len(needed)), rcond=None)
        if fewest > 0 and samples > 0:
            found.append(Contour(float(level), float(fewest), float(samples)))
    if len(found) < 3:
        raise UserError(
            f"only {len(found)} loss levels are reached at two batch sizes or more; add batch sizes or levels"
        )
    return found


def fit_critical_batch(found: list[Contour]) -> Fit:
    """B_crit = B* L^(-1/alpha_B) through the contours."""
    table = {"L": np.array([c.loss for c in found]), "B": np.array([c.batch for c in found])}
    return fit("critical_batch", table, {"L": "L"}, "B", delta=np.inf)


@dataclass(frozen=True)
class Stepwise:
    """The contours and the three fits, in order: L(N) of converged runs, B_crit(L), then the joint law L(N, S_min)."""

    contours: list[Contour]
    converged: Fit
    critical: Fit
    joint: Fit


def stepwise(
    params: Array,
    steps: Array,
    batch: Array,
    loss: Array,
    levels: Array | None = None,
    contour_params: float | None = None,
) -> Stepwise:
    """Estimate L(N) from the last point of every size, B_crit from one size's curves, then L(N, S_min).

    All arrays [n], one row per logged point; `contour_params` is the size that was run at several batch sizes
    (by default the one at the most), `levels` the losses of its contours (by default `shared_levels`). In the
    joint fit a size at one batch size is one run, and its rows count as one piece of evidence.
    """
    params, steps, batch, loss = (np.asarray(v, float) for v in (params, steps, batch, loss))
    sizes = np.unique(params)
    if contour_params is None:
        contour_params = max(sizes, key=lambda size: len(np.unique(batch[params == size])))
    at = params == contour_params
    if not at.any():
        raise UserError(f"no row has {contour_params:g} parameters; name a size of the table")
    if levels is None:
        levels = shared_levels(steps[at], batch[at], loss[at])
    found = contours(steps[at], batch[at], loss[at], levels)
    critical = fit_critical_batch(found)
    if not critical.identified:
        raise UserError(f"the critical batch size is not identified: {critical.audit.reasons[0]}; add batch sizes")
    lowest = np.array([loss[params == size].min() for size in sizes])
    converged = fit("power", {"N": sizes, "L": lowest}, {"N": "N"}, "L", delta=np.inf)
    _, run = np.unique(np.stack([params, batch], 1), axis=0, return_inverse=True)
    few = _thinned(steps, run.reshape(-1))
    fewest = minimum_steps(steps, batch, loss, critical)
    table = {"N": params[few], "S": fewest[few], "L": loss[few], "run": run.reshape(-1)[few]}
    joint = fit("kaplan_steps", table, {"N": "N", "S": "S"}, "L", cluster="run")
    return Stepwise(found, converged, critical, joint)


def shared_levels(steps: Array, batch: Array, loss: Array, count: int = 8) -> Array:
    """`count` losses [count] that the curve of every batch size passes through."""
    lowest, first = [], []
    for size in np.unique(batch):
        at = batch == size
        lowest.append(loss[at].min())
        first.append(loss[at][np.argmin(steps[at])])
    if len(lowest) < 2 or max(lowest) >= min(first):
        raise UserError(
            f"the curves at {len(lowest)} batch sizes share no loss; run one size at two batch sizes or more, "
            "down to the same loss"
        )
    levels: Array = np.geomspace(max(lowest), min(first), count + 2)[1:-1]
    return levels


def _thinned(steps: Array, run: np.ndarray) -> np.ndarray:
    """Positions of at most `_PER_CURVE` points of every run, evenly spaced in ln S: curves are smooth."""
    kept = []
    for each in range(int(run.max()) + 1):
        rows = np.flatnonzero(run == each)
        rows = rows[np.argsort(steps[rows])]
        wanted = np.geomspace(steps[rows[0]], steps[rows[-1]], _PER_CURVE)
        kept.append(rows if len(rows) <= _PER_CURVE else rows[np.unique(np.searchsorted(steps[rows[:-1]], wanted))])
    return np.concatenate(kept)
