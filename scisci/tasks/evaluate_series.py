"""Any GluonTS predictor measured on splits of time series, on the same windows as what was trained here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scisci.contracts.errors import UserError
from scisci.contracts.run import MetricValue
from scisci.data.frequencies import later, period
from scisci.data.series import SeriesDataset
from scisci.data.store import Store
from scisci.tasks.factories import made_by
from scisci.tasks.metrics import Accumulator
from scisci.tasks.predictions import writing_predictions
from scisci.tasks.series_metrics import LEVELS, series_errors, summarise, to_steps

BATCH = 64
Entry = dict[str, Any]


@dataclass(frozen=True)
class Forecaster:
    """A GluonTS predictor, and how it is asked: steps of context and horizon, and channels one by one or `together`."""

    predictor: Any
    context: int
    horizon: int
    together: bool = False

    def windows(self, store: Store, split: str, samples: int | None) -> SeriesDataset:
        """The windows of evaluation of the first `samples` of a split."""
        return SeriesDataset(store, store.split(split).indices(samples), self.context, self.horizon, rolling=True)

    def outputs(self, entries: list[Entry], batch: Any, rows: list[tuple[int, Any]]) -> dict[str, torch.Tensor]:
        """`mean` and `log_density` [B, C, H] and `quantiles` [B, C, H, 9] of a batch, NaN where a forecast has none.

        Entry k is of the window and the channels `rows[k]`.
        """
        forecasts = self._forecasts(entries)
        found = {name: torch.full(batch.future.shape, torch.nan).double() for name in ("mean", "log_density")}
        found["quantiles"] = found["mean"][..., None].repeat(1, 1, 1, len(LEVELS))
        for entry, (window, channels), forecast in zip(entries, rows, forecasts, strict=True):
            where = f"{entry['item_id']} from {entry['start']} on"
            try:
                mean = self._steps(forecast.mean, entry)
                quantiles = np.stack([self._steps(forecast.quantile(level), entry) for level in LEVELS], axis=-1)
                values, seen = (batch[name][window, channels] for name in ("future", "future_observed"))
                density = _log_density(forecast, values, seen)
            except UserError:
                raise
            except Exception as error:
                raise _failed(where, error) from error
            if not (np.isfinite(mean).all() and np.isfinite(quantiles).all()):
                raise UserError(f"the predictor's forecast of {where} is not finite; give another predictor")
            found["mean"][window, channels] = torch.from_numpy(mean)
            found["quantiles"][window, channels] = torch.from_numpy(quantiles)
            found["log_density"][window, channels] = density
        return found

    def _forecasts(self, entries: list[Entry]) -> list[Any]:
        try:
            forecasts = list(self.predictor.predict(entries))
        except UserError:
            raise
        except Exception as error:  # a predictor is anybody's code, and this says which series it failed on
            raise _failed(f"one of {len(entries)} series from {entries[0]['item_id']} on", error) from error
        if len(forecasts) != len(entries):
            raise UserError(
                f"the predictor gives {len(forecasts)} forecasts of {len(entries)} series; give one that forecasts each"
            )
        return forecasts

    def _steps(self, values: Any, entry: Entry) -> np.ndarray:
        """[H] or [C, H] numbers of a forecast, which are [H] or [H, C]."""
        found = np.asarray(values, dtype=np.float64).T
        if found.shape != (wanted := (*entry["target"].shape[:-1], self.horizon)):
            raise UserError(
                f"the predictor forecasts {found.shape} of {entry['item_id']} where {wanted} are asked for; make it"
                f" forecast {self.horizon} steps{' of all channels' if self.together else ''}"
            )
        return found


def load_predictor(factory: str, horizon: int, options: dict[str, Any]) -> Any:
    """Import "module:factory" and call it with `prediction_length` and `options`; the result predicts.

    Like GIFT-Eval, this takes whatever has a method `predict`, of GluonTS's own class or not.
    """
    predictor = made_by(factory, {"prediction_length": horizon, **options}, "--predictor-options")
    if not callable(getattr(predictor, "predict", None)):
        raise UserError(f"{factory} gives a {type(predictor).__name__}; give what returns a GluonTS predictor")
    if (length := getattr(predictor, "prediction_length", horizon)) != horizon:
        raise UserError(f"{factory} forecasts {length} steps, not {horizon}; give --horizon {length}")
    if lead := getattr(predictor, "lead_time", 0):
        raise UserError(f"{factory} leaves out the next {lead} steps (lead_time); give a predictor that does not")
    return predictor


def check(store: Store) -> None:
    """`UserError` for a store of anything but time series."""
    if store.domain != "series":
        raise UserError(f"{store.path} has no time series; choose another data set")


def batches(
    store: Store, windows: SeriesDataset, together: bool
) -> Iterator[tuple[np.ndarray, Any, list[Entry], list[tuple[int, Any]]]]:
    """Of a few windows at a time: their samples, their batch, and entries for GluonTS with the rows these are of.

    A channel without any observation in its context is not asked for, unless all channels are asked for `together`.
    """
    freqs, starts = store.metadata("freq"), store.sample_column("start")
    for first in range(0, len(windows), BATCH):
        chosen = list(range(first, min(first + BATCH, len(windows))))
        samples, batch = windows.samples[chosen], windows.__getitems__(chosen)
        entries, rows = [], []
        for window, sample in enumerate(samples):
            length, freq = int(min(batch.start[window], batch.past.shape[-1])), str(freqs[sample])
            time = later(int(starts[sample]), int(batch.start[window]) - length, freq)
            start = pd.Period(pd.Timestamp(time, unit="s"), freq=period(freq))
            observed = batch.past_observed[window, : batch.channels[window], -length:]
            past = torch.where(observed, batch.past[window, : batch.channels[window], -length:], torch.nan).numpy()
            known = observed.any(dim=1).nonzero()[:, 0].tolist()
            for channels in [slice(0, len(past))] if together else known:
                name = f"sample {sample}" + ("" if together else f" channel {channels}")
                entries.append({"start": start, "target": past[channels], "item_id": name})
                rows.append((window, channels))
        yield samples, batch, entries, rows


def evaluate(
    store: Store,
    split: str,
    forecaster: Forecaster,
    path: Path,
    samples: int | None = None,
    progress: Callable[[int], None] | None = None,
    **attributes: str,
) -> dict[str, MetricValue]:
    """Write a predictor's forecasts of a split to `path`; returns its errors with standard errors.

    The file is as `predict` writes it: a row per window, `mean` and `quantiles` of its channels one after the other.
    There is a log-likelihood only if all forecasts are densities. `progress` is told the number of windows that have
    been forecast since it was last told; `attributes` are written into the file.
    """
    errors = Accumulator(series_errors)
    windows = forecaster.windows(store, split, samples)
    with writing_predictions(path, store.fingerprint, split, **attributes) as writer:
        for ids, batch, entries, rows in batches(store, windows, forecaster.together):
            outputs = summarise(forecaster.outputs(entries, batch, rows), batch)
            kept = {name: values.numpy() for name, values in to_steps(outputs, batch).items()}
            lengths, start = np.diff(kept.pop("ptr")), kept.pop("start")
            writer.append(ids, lengths, {"start": start}, kept)
            errors.update(outputs, batch)
            if progress is not None:
                progress(len(ids))
    return {name: value for name, value in errors.compute().items() if not np.isnan(value.value)}


def _log_density(forecast: Any, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Log density [H] or [C, H] at `values`; NaN for forecasts that are no densities of every step by itself."""
    distribution, steps = getattr(forecast, "distribution", None), values.movedim(-1, 0)
    if distribution is None or distribution.batch_shape != steps.shape or distribution.support.is_discrete:
        return torch.full(values.shape, torch.nan, dtype=torch.float64)
    mean = distribution.mean
    # What was not observed need not be possible.
    known = torch.where(seen.movedim(-1, 0).to(mean.device), steps.to(mean), mean)
    return distribution.log_prob(known).movedim(0, -1).double().cpu()


def _failed(where: str, error: Exception) -> UserError:
    return UserError(
        f"the predictor failed on {where}: {type(error).__name__}: {' '.join(str(error).split())}; leave that"
        " sample out or give another predictor"
    )
