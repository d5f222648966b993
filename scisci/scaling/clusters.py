"""Variances that survive correlated rows: the bias-reduced cluster-robust sandwich and its degrees of freedom.

Bell and McCaffrey 2002 (CR2): residuals of a run are inflated by (I - H_gg)^(-1/2), and Student's t gets the
Satterthwaite degrees of freedom of the variance estimate under independent errors. Few runs are honest then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.scaling.law import Array

LEVEL = 0.95


@dataclass(frozen=True)
class Scale:
    """The variance of a log residual of weight 1, with the degrees of freedom that estimated it."""

    variance: float
    dof: float
    pooled_over: int = 1


@dataclass(frozen=True)
class Spread:
    """How uncertain linear combinations of the internal parameters are.

    `unit` [p, p] is (J' W J)^-1. Where every row is a run (`design` None) the variance is scale * c' unit c.
    Otherwise it is cluster-robust, from the weighted Jacobian `design` [n, p], residuals [n] and runs [n].
    """

    unit: Array
    scale: Scale
    design: Array | None = None
    residual: Array | None = None
    cluster: np.ndarray | None = None

    def of(self, contrast: Array) -> tuple[Array, Array]:
        """Variance [k] and degrees of freedom [k] of contrast [k, p] times the parameters."""
        plain = np.einsum("kp,pq,kq->k", contrast, self.unit, contrast)
        if self.design is None:
            return plain * self.scale.variance, np.full(len(contrast), float(self.scale.dof))
        assert self.residual is not None
        assert self.cluster is not None
        return cr2(self.design, self.residual, self.cluster, self.unit, contrast)

    def half_width(self, contrast: Array) -> Array:
        """Half of the 95 % interval [k] of contrast [k, p] times the parameters."""
        variance, dof = self.of(contrast)
        with np.errstate(invalid="ignore"):
            return np.where(dof > 0, quantile(dof) * np.sqrt(np.maximum(variance, 0.0)), np.inf)


def quantile(dof: Array | float) -> Array:
    """Two-sided Student quantile at the level of the intervals."""
    dof = np.asarray(dof, float)
    return np.where(dof > 0, stats.t.ppf(0.5 + LEVEL / 2, np.maximum(dof, 1e-3)), np.inf)


def cr2(design: Array, residual: Array, cluster: np.ndarray, unit: Array, contrast: Array) -> tuple[Array, Array]:
    """CR2 variance [k] and Bell-McCaffrey degrees of freedom [k] of contrast [k, p] times the estimates.

    (I - H_gg)^(-1/2) acts within the p columns of a run's design, so the cost is linear in rows and in runs.
    """
    groups = int(cluster.max()) + 1
    scores = np.empty((groups, len(contrast)))
    lifted = np.empty((groups, len(contrast), design.shape[1]))
    own = np.empty((groups, len(contrast)))
    values, vectors = np.linalg.eigh(unit)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # unit = root root'
    order = np.argsort(cluster, kind="stable")
    for g, rows in enumerate(np.split(order, np.cumsum(np.bincount(cluster))[:-1])):
        block = design[rows]
        left, singular, right = np.linalg.svd(block @ root, full_matrices=False)
        # a run that alone determines a direction has no residual there: that direction tells nothing
        free = 1.0 - singular**2
        weight = np.where(free > 1e-10, singular / np.sqrt(np.maximum(free, 1e-10)), 0.0)
        adjusted = (left * weight) @ (right @ root.T @ contrast.T)
        scores[g] = residual[rows] @ adjusted
        lifted[g] = (block.T @ adjusted).T
        own[g] = (adjusted**2).sum(0)
    dof = np.empty(len(contrast))
    for k in range(len(contrast)):
        # trace and squared norm of diag(own) - lifted unit lifted', whose size is that of all runs squared
        inner = unit @ lifted[:, k].T @ lifted[:, k]
        shared = np.einsum("gp,pq,gq->g", lifted[:, k], unit, lifted[:, k])
        size = float((own[:, k] ** 2).sum())
        square = size - 2.0 * float((own[:, k] * shared).sum()) + float(np.trace(inner @ inner))
        # what rounding leaves where the runs only just determine the estimate is no degree of freedom
        dof[k] = (own[:, k] - shared).sum() ** 2 / max(square, 1e-12 * size, 1e-300)
    return (scores**2).sum(0), dof
