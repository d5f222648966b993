"""Symmetry of forecasts, measured: how far f(g x) is from g f(x), in units of each channel's standard deviation.

A group acts on the context and, from its end on, on the forecast. `delay` and `patches` take the context for one period
of a signal and begin it some steps later; compared is what both forecasts are about. Windows of a single channel say
nothing about `channels` and `flow`, nor do models without patches about `patches`. A channel that is constant over its
context has no standard deviation, so no unit that moves with it, and is left out.
"""

from __future__ import annotations

import copy
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from scisci.contracts.errors import unknown_name
from scisci.data.batch import assemble
from scisci.symmetry.measure import Errors
from scisci.symmetry.series import SERIES, Delay, SeriesElement, apply_to_series

# A batch of windows → a forecast [B, C, H]; a batch and values [B, C, n] → values in units of each channel, or NaN.
Forecast = Callable[[Batch], Tensor]
Normalise = Callable[[Batch, Tensor], Tensor]
ABOUT: dict[str, tuple[str, str]] = {
    "scale": ("R+", "x -> a x, a from 1/10 to 10"),
    "offset": ("R", "x -> x + b, b up to 10 standard deviations"),
    "delay": ("Z_T", "forecasts that begin some steps later, the context wrapped around"),
    "patches": ("Z_(T/P)", "the same by whole patches of the model"),
    "channels": ("S_C", "reordering the channels"),
    "flow": ("Z_C", "sensors on a ring, seen from a frame that moves by whole sensors a step"),
}


def series_group(name: str) -> str:
    """The name of a group that acts on time series; an unknown one is a `UserError` with the closest names."""
    if name not in ABOUT:
        raise unknown_name("symmetry group of series", name, ABOUT)
    return name


def alike(batch: Batch) -> Iterator[tuple[Tensor, Batch]]:
    """Windows with equally many channels: which rows [b] of the batch they are, and they, without absent channels."""
    for count in batch.channels.unique().tolist():
        rows = torch.nonzero(batch.channels == count)[:, 0]
        found = {name: values[rows] for name, values in batch.to_dict().items() if name not in ("batch", "ptr")}
        index = torch.arange(len(rows) + 1, device=rows.device)
        for name in ("past", "past_observed", "future", "future_observed"):
            found[name] = found[name][:, :count]
        yield rows, assemble(found | {"batch": index[:-1], "ptr": index})


def _draw(group: str, windows: Batch, patch: int | None, rng: np.random.Generator) -> SeriesElement | None:
    """An element per window; `None` where the group has none but the identity."""
    target, horizon = windows.past.where(windows.past_observed, torch.nan), windows.future.shape[2]
    if group in ("channels", "flow"):
        return SERIES[group](target, rng) if target.shape[1] > 1 else None
    if group not in ("delay", "patches"):
        return SERIES[group](target, rng)
    step = 1 if group == "delay" else patch
    most = 0 if step is None else (min(horizon, target.shape[2]) - 1) // step
    if step is None or most == 0:
        return None
    steps = rng.integers(1, most, len(target), endpoint=True) * rng.choice([-1, 1], len(target)) * step
    return Delay(torch.from_numpy(steps) % target.shape[2], target.shape[2])


def _squares(
    forecast: Forecast, windows: Batch, plain: Tensor, seen: Tensor, element: SeriesElement, normalise: Normalise
) -> Tensor:
    """[b] sums of squares over the steps `seen`; of a delay, as if all of them had a counterpart."""
    acted = copy.copy(windows)
    acted.past, acted.past_observed, undo = apply_to_series(element, windows.past, windows.past_observed)
    back = undo(forecast(acted))
    known = seen & undo(torch.ones_like(plain)).isfinite()
    missed = (normalise(windows, back) - normalise(windows, plain)).double()
    total = torch.where(known, missed.square(), 0).sum(dim=(1, 2))
    return total * seen.sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)


def measure_forecasts(
    forecast: Forecast,
    batches: Iterable[Batch],
    groups: Iterable[str],
    normalise: Normalise,
    patch: int | None = None,
    elements: int = 1,
    seed: int = 0,
) -> dict[tuple[str, str], Errors]:
    """Errors by (group, "forecast"): each window under `elements` random elements, over the steps that have labels.

    A group's draws depend on the seed and its own name alone. A group that says nothing about any window is left out.
    """
    streams = {series_group(group): np.random.default_rng([seed, zlib.crc32(group.encode())]) for group in groups}
    parts: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    start = 0
    for batch in batches:
        for rows, windows in alike(batch):
            plain = forecast(windows)
            seen = windows.future_observed & windows.past_observed.any(dim=2, keepdim=True)
            seen &= normalise(windows, torch.zeros_like(plain)).isfinite()
            size, label = normalise(windows, plain).double(), normalise(windows, windows.future).double()
            shared = {
                "signals": torch.where(seen, size.square(), 0).sum(dim=(1, 2)),
                "missed": torch.where(seen, (size - label).square(), 0).sum(dim=(1, 2)),
                "entries": seen.sum(dim=(1, 2)).double(),
                "samples": start + rows,
                "groups": windows.group,
            }
            for group, rng in streams.items():
                drawn = [_draw(group, windows, patch, rng) for _ in range(elements)]
                found = [_squares(forecast, windows, plain, seen, g, normalise) for g in drawn if g is not None]
                if found:
                    parts[group].append({"squares": torch.stack(found, dim=1)} | shared)
        start += len(batch.channels)
    return {
        (group, "forecast"): Errors(
            **{name: torch.cat([part[name] for part in found]).cpu().numpy() for name in found[0]}
        )
        for group, found in parts.items()
    }
