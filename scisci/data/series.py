"""Batches of time series: windows of a context and of the horizon that follows it, cut out of stored series.

A batch is a `torch_geometric.data.Batch` with these tensors (B windows, C channels, T context, H horizon):

    past             [B, C, T]  float32, 0 where not observed; what lies before a series' start is not observed
    past_observed    [B, C, T]  bool
    future           [B, C, H]  float32, 0 where not observed
    future_observed  [B, C, H]  bool
    season           [B]        int64    steps of the seasonal period of the series' frequency (`season`)
    channels         [B]        int64    how many of the C channels each series has; the others are not observed
    start            [B]        int64    at which step of the stored series the future begins
    group            [B]        int64    of which series the window is
    ptr              [B + 1]    int64    and batch [B]: 0, 1, 2, ...; a window is one system
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info
from torch_geometric.data import Batch

from scisci.contracts.errors import UserError
from scisci.data.batch import assemble
from scisci.data.frequencies import season
from scisci.data.parcel import Parcel
from scisci.data.ragged import Ragged
from scisci.data.store import Store

# As many windows of a series as GIFT-Eval takes (Aksu et al., 2024).
MOST_WINDOWS = 20


def steps(ragged: Ragged) -> np.ndarray:
    """[n] times of each series."""
    return ragged.lengths // (ragged.samples["channels"] + ragged.samples["known"])


def rolling_windows(times: np.ndarray, context: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows for evaluation: of which series each is, and at which step its future begins.

    Futures do not overlap, and the last one ends where its series ends. There are as many, up to 20, as have a whole
    context; of a series of `times` [n] steps too short for that there is one. In the order of time.
    """
    count = ((times - context) // horizon).clip(1, MOST_WINDOWS)
    series = np.repeat(np.arange(len(times)), count)
    back = np.concatenate([np.arange(n, 0, -1) for n in count]) if len(times) else np.zeros(0, np.int64)
    return series, times[series] - back * horizon


def random_starts(times: np.ndarray, context: int, horizon: int, seed: int, draws: Sequence[int]) -> np.ndarray:
    """[n] where a window of each series of `times` [n] steps begins its future.

    Uniform over all places where the context is whole; where there are none, over all that have some of it. The seed
    and the number of a draw decide, and nothing else.
    """
    last = times - horizon
    first = np.minimum(context, last.clip(min=1))
    drawn = np.array([np.random.default_rng([seed, draw]).random() for draw in draws])
    return first + (drawn * (last - first + 1)).astype(np.int64)


def checked_times(store: Store, indices: np.ndarray, horizon: int) -> np.ndarray:
    """[n] steps of the series at `indices`; `UserError` that names the first with none before its last `horizon`."""
    counts = store.sample_column("channels") + store.sample_column("known")
    times = store.lengths(indices) // counts[indices]
    if len(short := np.flatnonzero(times <= horizon)):
        raise UserError(
            f"sample {indices[short[0]]} has {times[short[0]]} steps, which leaves none before a horizon of {horizon};"
            f" lower the horizon below {times.min()}, or leave such series out"
        )
    return times


def series_batch(
    ragged: Ragged,
    freqs: Sequence[str] | np.ndarray,
    context: int,
    horizon: int,
    starts: np.ndarray | None = None,
    series: np.ndarray | None = None,
    dtype: type = np.float32,
) -> Batch:
    """Cut one window out of every series, or of those at the positions `series` [B]; repeats are allowed.

    `freqs` [n] are the frequencies of the series; `starts` [B] says at which step each future begins, by default so
    that it ends where the series does. What lies outside of a series is not observed.
    """
    series = np.arange(len(ragged)) if series is None else series
    times, channels = steps(ragged), ragged.samples["channels"]
    starts = times[series] - horizon if starts is None else starts
    values = np.full((len(series), channels[series].max(initial=1), context + horizon), np.nan, dtype)
    for row, (k, start) in enumerate(zip(series.tolist(), starts.tolist(), strict=True)):
        count, length, first = channels[k], times[k], ragged.offsets[k]
        stored = ragged.items["values"][first : first + count * length].reshape(count, length)
        begin, end = max(0, start - context), min(length, start + horizon)
        values[row, :count, begin - start + context : end - start + context] = stored[:, begin:end]
    observed = ~np.isnan(values)
    values[~observed] = 0
    found, seen = torch.from_numpy(values), torch.from_numpy(observed)
    index = torch.arange(len(series) + 1)
    per_window = {
        "season": np.array([season(freq) for freq in np.asarray(freqs)[series]], np.int64),
        "channels": channels[series].astype(np.int64),
        "start": starts.astype(np.int64),
        "group": ragged.samples["group"][series].astype(np.int64),
    }
    return assemble(
        {
            "past": found[..., :context].contiguous(),
            "past_observed": seen[..., :context].contiguous(),
            "future": found[..., context:].contiguous(),
            "future_observed": seen[..., context:].contiguous(),
            **{name: torch.from_numpy(column) for name, column in per_window.items()},
            "batch": index[:-1],
            "ptr": index,
        }
    )


class SeriesDataset(Dataset):
    """Whole batches of windows of a store's series: `__getitems__` returns one collated batch.

    `rolling`: the windows for evaluation, in order. Otherwise an item is epoch x n + series, and gives a window of the
    series that is another in every epoch, by `seed`. `UserError` for a series not longer than the horizon.
    """

    def __init__(
        self, store: Store, indices: np.ndarray, context: int, horizon: int, rolling: bool, seed: int = 0
    ) -> None:
        self._context, self._horizon, self._seed = context, horizon, seed
        self._freqs = store.metadata("freq")[indices]
        self._source, self._indices = store.kept(indices)
        self._times = checked_times(store, indices, horizon)
        self._windows = rolling_windows(self._times, context, horizon) if rolling else None
        self.samples = indices if self._windows is None else indices[self._windows[0]]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, batch: list[int]) -> Any:
        chosen, starts = np.asarray(batch) % len(self), None
        if self._windows is None:
            starts = random_starts(self._times[chosen], self._context, self._horizon, self._seed, batch)
        else:
            chosen, starts = (column[chosen] for column in self._windows)
        # Neighbouring windows share their series, which is read once.
        read, series = np.unique(chosen, return_inverse=True)
        ragged = self._source.take(self._indices[read])
        collated = series_batch(ragged, self._freqs[read], self._context, self._horizon, starts, series)
        return collated if get_worker_info() is None else Parcel(collated)
