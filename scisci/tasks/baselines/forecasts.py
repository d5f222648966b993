"""A baseline for time series: what was there a season ago."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from scisci.tasks.baselines.linear import Baseline, Batches
from scisci.tasks.series_metrics import seasonal_naive


class SeasonalNaive(Baseline):
    """The last value at the same place in the season, or where there is none the last value."""

    target = "forecast"
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {"0": {}}
    params = 0

    def fit(self, train: Batches, val: Batches) -> None:
        """Nothing."""

    def work(self, batch: Any) -> None:
        """Nothing."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`point` [B, C, H] in the units of the data."""
        return {"point": seasonal_naive(batch)}
