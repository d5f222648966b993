"""Errors of forecasts, by the definitions of GluonTS's evaluator, and those of a seasonal naive forecast.

Steps without an observation, and channels that had none in their context, do not count.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scisci.models.blocks.instance_norm import instance
from scisci.models.blocks.mixture import StudentMixture
from scisci.tasks.metrics import Relative

LEVELS = tuple(k / 10 for k in range(1, 10))
Errors = dict[str, tuple[Tensor, Tensor] | Relative]


def seasonal_naive(batch: Any) -> Float[Tensor, "batch channels horizon"]:
    """The last observed value at the same place in the season.

    Where the context has none there, the last observed value of the channel; 0 where there is none at all.
    """
    past, observed, horizon = batch.past, batch.past_observed, batch.future.shape[-1]
    time = torch.arange(past.shape[-1], device=past.device)
    latest = torch.where(observed, time, -1)
    phases = int(batch.season.max())
    of_time = ((time - len(time)) % batch.season[:, None])[:, None].expand_as(latest)
    of_step = (torch.arange(horizon, device=past.device) % batch.season[:, None])[:, None]
    none = latest.new_full((*past.shape[:-1], phases), -1)
    by_phase = none.scatter_reduce(2, of_time, latest, "amax")
    found = by_phase.gather(2, of_step.expand(*past.shape[:-1], horizon))
    found = torch.where(found < 0, latest.amax(dim=2, keepdim=True), found)
    return torch.where(found < 0, 0, past.gather(2, found.clamp(min=0)))


def seasonal_error(batch: Any) -> Float[Tensor, "batch channels 1"]:
    """Mean absolute difference of observed values a season apart, or a step where none are; NaN without any."""
    past = torch.where(batch.past_observed, batch.past.double(), torch.nan)
    found = (past[..., 1:] - past[..., :-1]).abs().nanmean(dim=-1, keepdim=True)
    for season in batch.season.unique().tolist():
        of = batch.season == season
        apart = (past[of, :, season:] - past[of, :, :-season]).abs().nanmean(dim=-1, keepdim=True)
        found[of] = torch.where(apart.isnan(), found[of], apart)
    return found


def quantile_loss(quantiles: Float[Tensor, "*steps levels"], values: Float[Tensor, "*steps"]) -> Tensor:
    """[...] mean over the levels of twice the pinball loss: an estimate of the continuous ranked probability score."""
    levels = torch.tensor(LEVELS, dtype=values.dtype, device=values.device)
    over = (quantiles >= values[..., None]).to(values.dtype)
    return 2 * ((values[..., None] - quantiles) * (over - levels)).abs().mean(dim=-1)


def scored(batch: Any) -> Bool[Tensor, "batch channels horizon"]:
    """Which steps count."""
    seen: Tensor = batch.future_observed & batch.past_observed.any(dim=-1, keepdim=True)
    return seen


def expected(outputs: dict[str, Tensor], values: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean of a forecast, and log density at `values`, which are float64 [B, C, H]; a forecast of points has none.

    `outputs` are a model's, or `mean`, `quantiles` at `LEVELS` and perhaps `log_density` of a forecast made elsewhere.
    """
    if "mean" in outputs:
        return outputs["mean"], outputs.get("log_density")
    if "point" in outputs:
        return outputs["point"].double(), None
    mixture = _mixture(outputs)
    return mixture.mean(), mixture.log_prob(values)


def deciles(outputs: dict[str, Tensor]) -> Float[Tensor, "batch channels horizon levels"]:
    """Quantiles of a forecast at `LEVELS`; a point stands for all of them."""
    if "quantiles" in outputs:
        return outputs["quantiles"]
    if "point" in outputs:
        return outputs["point"].double()[..., None].expand(*outputs["point"].shape, len(LEVELS))
    return _mixture(outputs).quantile(LEVELS)


def summarise(outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
    """`mean`, `quantiles` at `LEVELS` and, of a density, `log_density` of a model's outputs, each found only once.

    Float64; mean and quantiles are first rounded to float32, which predictions files hold, so that errors are those of
    the file to the last digit.
    """
    mean, density = expected(outputs, batch.future.double())
    found = {"mean": mean.float().double(), "quantiles": deciles(outputs).float().double()}
    return found if density is None else found | {"log_density": density}


def to_steps(found: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
    """What a predictions file keeps of a forecast: `mean` [S] and `quantiles` [S, 9] of the S steps of all channels.

    Windows and their channels one after the other, without what pads a batch. With `start` [B], at which step of its
    series each forecast begins, and `ptr` [B + 1] into the steps.
    """
    ptr = torch.cat([batch.ptr[:1], (batch.channels * batch.future.shape[-1]).cumsum(0)])
    rows = {name: found[name][real_channels(batch)].flatten(0, 1).float() for name in ("mean", "quantiles")}
    return rows | {"start": batch.start, "ptr": ptr}


def of_steps(kept: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
    """Undo `to_steps`: `mean` [B, C, H] and `quantiles` [B, C, H, 9] in float64, NaN where channels pad the batch."""
    real, horizon = real_channels(batch), batch.future.shape[-1]
    found = {}
    for name in ("mean", "quantiles"):
        values = kept[name].double().unflatten(0, (-1, horizon))
        found[name] = values.new_full((*real.shape, *values.shape[1:]), torch.nan)
        found[name][real] = values
    return found


def real_channels(batch: Any) -> Bool[Tensor, "batch channels"]:
    """Which channels are of a series; the others pad the batch."""
    real: Tensor = torch.arange(batch.past.shape[1], device=batch.past.device) < batch.channels[:, None]
    return real


def likelihood_errors(outputs: dict[str, Tensor], batch: Any) -> Errors:
    """Per-sample (numerator, weight) of what needs no quantiles: `series_mse`, and of a density its `series_nll`.

    The first and the second are in units of each channel's instance; `series_nll_raw` is in those of the data.
    """
    values, seen, scale = batch.future.double(), scored(batch), instance(batch.past, batch.past_observed).scale.double()
    mean, density = expected(outputs, values)
    errors: Errors = {"series_mse": _mean(((mean - values) / scale).square(), seen)}
    if density is not None:
        errors["series_nll"] = _mean(-density - scale.log(), seen)
        errors["series_nll_raw"] = _mean(-density, seen)
    return errors


def series_errors(outputs: dict[str, Tensor], batch: Any) -> Errors:
    """Per-sample parts of all metrics: those of `likelihood_errors`, and of the deciles and the median."""
    values, seen, quantiles = batch.future.double(), scored(batch), deciles(outputs)
    loss, naive = quantile_loss(quantiles, values), (seasonal_naive(batch).double() - values).abs()
    median = quantiles[..., LEVELS.index(0.5)]
    missed, scale = (median - values).abs(), seasonal_error(batch).expand_as(values)
    size = median.abs() + values.abs()
    scaled = seen & (scale > 0)
    return likelihood_errors(outputs, batch) | {
        "series_wql": (_sum(loss, seen), _sum(values.abs(), seen)),
        "series_mase": _mean(missed / scale, scaled),
        "series_smape": _mean(2 * missed / size, seen & (size > 0)),
        "series_wql_relative": Relative(_sum(loss, seen), _sum(naive, seen)),
        "series_mase_relative": Relative(_sum(missed / scale, scaled), _sum(naive / scale, scaled)),
    }


def _mixture(outputs: dict[str, Tensor]) -> StudentMixture:
    return StudentMixture.of({name: part.double() for name, part in outputs.items()})


def _sum(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0).sum(dim=(1, 2))


def _mean(values: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    return _sum(values, where), where.sum(dim=(1, 2)).double()
