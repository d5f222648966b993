"""A forecaster trained here as a GluonTS predictor, so that any tool for these can use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, StudentT

from scisci.contracts.errors import UserError
from scisci.data.ragged import Ragged, offsets_of
from scisci.data.series import series_batch
from scisci.models.blocks.mixture import StudentMixture
from scisci.tasks.checkpoints import load_task
from scisci.tasks.factories import GLUONTS
from scisci.tasks.series_metrics import LEVELS

try:
    from gluonts.model.forecast import Forecast, Quantile, SampleForecast
    from gluonts.model.predictor import Predictor
    from gluonts.torch.model.forecast import DistributionForecast
except ModuleNotFoundError as error:
    raise UserError(GLUONTS) from error


class ScisciPredictor(Predictor):
    """A trained model's forecasts of entries with `start` (a `pandas.Period`) and `target` [T] or, of channels, [C, T].

    NaN in `target` are masked; of a series longer than the model's context the end is used, a shorter one is padded.
    A model of distributions gives a `DistributionForecast`, one of points a `SampleForecast` of a single sample; both
    are [H], or [H, C] where the target has channels.

    Args:
        checkpoint: run directory of `fit` or `sweep`, its `model.safetensors` or `model.json`, or a `.ckpt`.
        prediction_length: steps H to forecast, at most the model's horizon, which is the default.
        device: where torch evaluates the model.
        batch_size: how many entries it is given at once.
    """

    def __init__(
        self, checkpoint: Path | str, prediction_length: int | None = None, device: str = "cpu", batch_size: int = 64
    ) -> None:
        task = load_task(checkpoint)
        if task.domain != "series":
            raise UserError(f"{checkpoint} does not forecast; give a model trained on time series")
        steps = task.horizon if prediction_length is None else prediction_length
        if not 1 <= steps <= task.horizon:
            raise UserError(f"{checkpoint} forecasts 1 to {task.horizon} steps, not {steps}; give a horizon it has")
        super().__init__(prediction_length=steps)
        self.context, self._horizon = task.context, task.horizon
        self._model = task.model.to(device).eval().requires_grad_(False)
        self._device, self._batch_size = device, batch_size

    def predict(self, dataset: Iterable[dict[str, Any]], **kwargs: Any) -> Iterator[Forecast]:
        """One forecast per entry, in order."""
        remaining = iter(dataset)
        while entries := list(islice(remaining, self._batch_size)):
            targets = [np.asarray(entry["target"], np.float32)[..., -self.context :] for entry in entries]
            lengths = np.array([target.shape[-1] for target in targets])
            freqs = [entry["start"].freqstr for entry in entries]
            batch = series_batch(_ragged(targets), freqs, self.context, self._horizon, lengths).to(self._device)
            outputs = {name: values.cpu().double() for name, values in self._model(batch).items()}
            for k, (entry, target) in enumerate(zip(entries, targets, strict=True)):
                yield self._forecast({name: values[k] for name, values in outputs.items()}, entry, target.ndim)

    def _forecast(self, outputs: dict[str, Tensor], entry: dict[str, Any], ndim: int) -> Forecast:
        channels = np.shape(entry["target"])[0] if ndim == 2 else 1
        steps = {name: values[:channels, : self.prediction_length].movedim(0, 1) for name, values in outputs.items()}
        if ndim == 1:
            steps = {name: values[:, 0] for name, values in steps.items()}
        about = {
            "start_date": entry["start"] + np.shape(entry["target"])[-1],
            "item_id": entry.get("item_id"),
            "info": entry.get("info"),
        }
        if "point" in steps:
            return SampleForecast(steps["point"][None].numpy(), **about)
        return MixtureForecast(StudentMixture.of(steps), **about)


class MixtureForecast(DistributionForecast):
    """A forecast by a mixture of Student t at every step."""

    def __init__(self, mixture: StudentMixture, start_date: pd.Period, item_id: Any = None, info: Any = None) -> None:
        steps = StudentT(mixture.df, mixture.loc, mixture.scale)
        super().__init__(MixtureSameFamily(Categorical(logits=mixture.logits), steps), start_date, item_id, info)
        self._mixture = mixture

    @cached_property
    def _deciles(self) -> np.ndarray:
        return self._mixture.quantile(LEVELS).numpy()

    def quantile(self, level: float | str) -> np.ndarray:
        """[H] or [H, C] values of one level; torch's mixtures have none."""
        value = Quantile.parse(level).value
        if value not in LEVELS:
            return self._mixture.quantile([value])[..., 0].numpy()
        # All nine at once take little longer than one.
        return self._deciles[..., LEVELS.index(value)]


def _ragged(targets: list[np.ndarray]) -> Ragged:
    """Series of one channel [T] or several [C, T], as a store has them."""
    n = len(targets)
    samples = {
        "channels": np.array([len(np.atleast_2d(target)) for target in targets]),
        "known": np.zeros(n, np.int64),
        "group": np.arange(n),
    }
    values = np.concatenate([target.ravel() for target in targets])
    return Ragged(offsets_of(np.array([target.size for target in targets])), {"values": values}, samples)
