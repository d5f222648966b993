"""Errors of many models at once, as means over seeds with intervals; their ratios, geometric means and ranks.

A model is measured in K runs, one per seed, each time on the same samples. With s the mean of the runs' standard errors
over samples (over whole groups where there are some), and S the standard deviation over seeds, the variance of the mean
is s² + S² / K: the samples are shared, so more seeds do not make their part smaller. S is pooled over all
configurations that a submission trained with several seeds, as a share of their errors, since two seeds alone say
little. The quantile is Student's with the degrees of freedom of Welch and Satterthwaite: those of S for its part, and
infinitely many for that of the samples. Where no configuration has a second seed, the interval is that of the samples:
it is for the trained model, and says nothing of other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scisci.scaling.clusters import quantile
from scisci.scaling.law import Array


@dataclass(frozen=True)
class Errors:
    """Errors of models [index: slug] on splits [columns].

    `mean`, `sampling` (s) and `runs` (K) are over the runs of the chosen configuration; `logs` holds ln error of all
    runs [index: slug, cell, run], so that what the seeds of a cell share between splits cancels in ratios.
    """

    mean: pd.DataFrame
    sampling: pd.DataFrame
    runs: pd.DataFrame
    logs: pd.DataFrame

    @classmethod
    def of(cls, rows: pd.DataFrame, slugs: Sequence[str], splits: Sequence[str]) -> Errors:
        """From one row per run and split.

        Columns: `slug`, `cell` (which configuration), `chosen` (whether that one), `run`, `split`, `value`, `error`.
        """
        found = rows[rows.chosen].groupby(["slug", "split"])
        mean, sampling, runs = (
            one.unstack("split").reindex(index=slugs, columns=splits)
            for one in (found.value.mean(), found.error.mean(), found.value.size())
        )
        by_run = rows.set_index(["slug", "cell", "run", "split"]).value.unstack("split").reindex(columns=splits)
        with np.errstate(divide="ignore"):
            return cls(mean, sampling, runs, np.log(by_run))

    def on(self, split: str) -> pd.DataFrame:
        """The mean error on a split with its 95 % interval, which ends at zero: columns `value`, `low`, `high`."""
        value = self.mean[split]
        spread, dof = self._over_seeds({split: 1.0})
        half = _half_width(self.sampling[split], value * spread, self.runs[split], dof)
        return pd.DataFrame({"value": value, "low": (value - half).clip(lower=0.0), "high": value + half})

    def product(self, powers: Mapping[str, float]) -> pd.DataFrame:
        """The product over splits of error^power with its 95 % interval: columns `value`, `low`, `high`.

        Powers 1 and -1 give a ratio of errors, 1 / S each the geometric mean over S splits. The interval is that of the
        logarithm, by the delta method: the samples of different splits are independent, and seeds are paired.
        """
        splits, power = list(powers), np.array(list(powers.values()))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = (np.log(self.mean[splits]) * power).sum(axis=1, skipna=False)
            sampling = np.sqrt(((self.sampling[splits] / self.mean[splits] * power) ** 2).sum(axis=1, skipna=False))
            spread, dof = self._over_seeds(powers)
            half = _half_width(sampling, spread, self.runs[splits].min(axis=1), dof)
            return pd.DataFrame({"value": np.exp(value), "low": np.exp(value - half), "high": np.exp(value + half)})

    def _over_seeds(self, powers: Mapping[str, float]) -> tuple[pd.Series, pd.Series]:
        """Standard deviation of ln of a product over the seeds of one cell, and its degrees of freedom, by slug."""
        with np.errstate(invalid="ignore"):
            logs = (self.logs[list(powers)] * np.array(list(powers.values()))).sum(axis=1, skipna=False)
            cells = logs.groupby(["slug", "cell"])
            squares = (logs - cells.transform("mean")).pow(2).groupby("slug").sum()
        dof = (cells.count() - 1).clip(lower=0).groupby("slug").sum()
        spread = np.sqrt(squares / dof.where(dof > 0))
        return spread.reindex(self.mean.index), dof.reindex(self.mean.index)


def _half_width(sampling: pd.Series, spread: pd.Series, runs: pd.Series, dof: pd.Series) -> Array:
    """Half of the 95 % interval of a mean over `runs`; NaN where nothing tells the uncertainty."""
    of_samples, of_seeds = sampling.to_numpy() ** 2, spread.to_numpy() ** 2 / runs.to_numpy()
    variance = np.where(np.isnan(of_seeds), of_samples, np.nan_to_num(of_samples) + of_seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = np.where(of_seeds > 0, variance**2 / of_seeds**2 * dof.to_numpy(), np.inf)
    return quantile(joint) * np.sqrt(variance)


def ranks(low: Array, high: Array) -> np.ndarray:
    """1 + how many of the intervals lie wholly below each one: those that overlap with the best share its rank."""
    return 1 + np.searchsorted(np.sort(high), low, side="left")
