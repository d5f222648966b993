"""Variance- or resolution-limited: the intrinsic dimension of a data set and the exponents it allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from scisci.contracts.errors import UserError
from scisci.scaling.fitted import Fit
from scisci.scaling.law import Array
from scisci.scaling.table import read_table


@dataclass(frozen=True)
class Dimension:
    """Intrinsic dimension with its 95 % interval, from `n` points with distinct neighbours."""

    value: float
    low: float
    high: float
    n: int

    @property
    def resolution_limited(self) -> tuple[float, float]:
        """The least and the largest exponent that the interval allows, 1/d to 4/d (see `regime`)."""
        return 1.0 / self.high, 4.0 / self.low


def read_features(source: Path | str, columns: Sequence[str] = (), where: str | None = None) -> Array:
    """Features [n, k]: the named columns of a table, or a whole array of an .npy file."""
    if Path(source).suffix.lower() != ".npy":
        if not columns:
            raise UserError("say which columns of the table are the features, as in --columns a,b,c")
        table = read_table(source).where(where)
        return np.stack([table.numbers(name) for name in columns], 1)
    if columns or where:
        raise UserError("an .npy file holds one array [samples, features] and is used whole; leave out the columns")
    try:
        features = np.load(source, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no array at {source}; check the path") from error
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {source} as an .npy array of numbers; write it with numpy.save") from error
    if features.dtype.kind not in "fiu" or features.ndim != 2:
        raise UserError(f"{source} holds {features.dtype} {features.shape}; an array of numbers [n, k] is needed")
    return np.asarray(features, float)


def intrinsic_dimension(features: Array) -> Dimension:
    """TwoNN (Facco et al. 2017): ratios mu = r_2 / r_1 of neighbour distances follow mu^(-d-1).

    `features` [n, k]; repeated points are refused. The maximum-likelihood estimate (n - 1) / sum ln mu has a
    gamma distribution, which gives the interval.
    """
    features = np.asarray(features, float)
    if features.ndim != 2 or len(features) < 10:
        raise UserError("an intrinsic dimension needs at least 10 points [n, k]; add samples")
    if not np.isfinite(features).all():
        raise UserError("the features hold NaN or infinite values; remove those samples")
    distance, _ = cKDTree(features).query(features, k=3)
    if (distance[:, 1] == 0).any():
        raise UserError(f"{int((distance[:, 1] == 0).sum())} points are repeated; remove duplicates first")
    total = float(np.log(distance[:, 2] / distance[:, 1]).sum())
    n = len(features)
    low, high = stats.gamma.ppf([0.025, 0.975], n) / total
    return Dimension((n - 1) / total, float(low), float(high), n)


def regime(fit: Fit, dimension: Dimension | None = None) -> str:
    """Which of Bahri et al.'s regimes the exponent is compatible with, in a sentence.

    Variance-limited: exponent 1. Resolution-limited: between 1/d and 4/d (piecewise constant to piecewise
    linear interpolation of a smooth target on a d-dimensional manifold). arXiv:2102.06701.
    """
    name = fit.law.exponent
    if not fit.identified:
        return f"{name} is not identified, so it tells no regime"
    low, high = fit.intervals[name]
    if low <= 1.0 <= high:
        return f"{name} [{low:.2f}, {high:.2f}] is compatible with 1: variance-limited"
    if dimension is None:
        return f"{name} [{low:.2f}, {high:.2f}] is not 1: resolution-limited or between; give the data's dimension"
    least, most = dimension.resolution_limited
    if high >= least and low <= most:
        return f"{name} [{low:.2f}, {high:.2f}] lies in 1/d to 4/d = {least:.2f} to {most:.2f}: resolution-limited"
    return f"{name} [{low:.2f}, {high:.2f}] is neither 1 nor in 1/d to 4/d = {least:.2f} to {most:.2f}"
