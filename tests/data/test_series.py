"""Windows of stored series, held to the series that they were cut out of."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch

from scisci.contracts.errors import UserError
from scisci.data import store as stores
from scisci.data.batch import first_systems
from scisci.data.module import StoreDataModule
from scisci.data.parcel import Parcel
from scisci.data.samples import SeriesSample
from scisci.data.series import SeriesDataset, random_starts, rolling_windows, series_batch
from scisci.data.store import Store
from scisci.data.writer import StoreWriter

CONTEXT, HORIZON = 10, 4


def series(seed: int = 0) -> list[SeriesSample]:
    rng = np.random.default_rng(seed)
    shapes = [(1, 30, 0, "h"), (3, 12, 2, "D"), (2, 47, 1, "15min"), (2, 5, 0, "MS"), (1, 300, 0, "W-MON")]
    samples = []
    for channels, times, known, freq in shapes:
        target = rng.normal(size=(channels, times)).astype(np.float32)
        target[rng.random(target.shape) < 0.2] = np.nan
        covariates = rng.normal(size=(known, times)) if known else None
        samples.append(SeriesSample(target, int(rng.integers(10**9)), freq, covariates))
    return samples


@pytest.fixture
def samples() -> list[SeriesSample]:
    return series()


@pytest.fixture
def path(tmp_path: Path, samples: list[SeriesSample]) -> Path:
    with StoreWriter(tmp_path / "store", "series", shard_samples=2) as writer:
        for k, sample in enumerate(samples):
            writer.append(sample, f"station {k}", elevation=float(k))
        for name in ("train", "val", "test"):
            writer.split(name, np.array([4, 2, 0, 1, 3]), "none")
    return tmp_path / "store"


def window(sample: SeriesSample, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Past and future of a window by hand, value by value, NaN where there is none."""
    channels, times = sample.target.shape

    def at(c: int, t: int) -> float:
        return float(sample.target[c, t]) if 0 <= t < times else np.nan

    past = [[at(c, start - CONTEXT + k) for k in range(CONTEXT)] for c in range(channels)]
    return np.array(past), np.array([[at(c, start + k) for k in range(HORIZON)] for c in range(channels)])


def assert_window(batch: Batch, row: int, sample: SeriesSample) -> None:
    count, start = len(sample.target), int(batch.start[row])
    assert batch.channels[row] == count
    for name, expected in zip(("past", "future"), window(sample, start), strict=True):
        observed = batch[f"{name}_observed"][row].numpy()
        np.testing.assert_array_equal(observed[:count], ~np.isnan(expected))
        np.testing.assert_array_equal(batch[name][row, :count].numpy(), np.nan_to_num(expected).astype(np.float32))
        assert not observed[count:].any()
        assert not batch[name][row, count:].any()


def test_a_store_keeps_series_with_their_frequencies(path: Path, samples: list[SeriesSample]) -> None:
    store = Store(path)
    assert store.metadata("freq").tolist() == [sample.freq for sample in samples]
    assert store.metadata("elevation").tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert store.sample_column("start").tolist() == [sample.start for sample in samples]
    taken = np.array([3, 0, 4, 2, 2])
    np.testing.assert_array_equal(store.lengths(taken), store.take(taken).lengths)


def test_windows_are_slices_of_their_series(path: Path, samples: list[SeriesSample]) -> None:
    store, chosen = Store(path), np.array([0, 4, 4, 2, 1, 3])
    starts = np.array([26, 290, 3, 20, 8, 1])
    read, which = np.unique(chosen, return_inverse=True)
    batch = series_batch(store.take(read), store.metadata("freq")[read], CONTEXT, HORIZON, starts, which)
    assert batch.past.shape == (6, 3, CONTEXT)
    assert batch.future.shape == (6, 3, HORIZON)
    for row, k in enumerate(chosen):
        assert_window(batch, row, samples[k])
    assert batch.season.tolist() == [24, 1, 1, 96, 1, 12]
    assert batch.group.tolist() == chosen.tolist()
    assert batch.num_graphs == len(batch.ptr) - 1 == 6


def test_windows_end_with_their_series_by_default(path: Path, samples: list[SeriesSample]) -> None:
    store = Store(path)
    batch = series_batch(store.take(np.arange(5)), store.metadata("freq"), CONTEXT, HORIZON)
    assert batch.start.tolist() == [sample.target.shape[1] - HORIZON for sample in samples]
    for row, sample in enumerate(samples):
        assert_window(batch, row, sample)


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=5), st.integers(1, 60), st.integers(1, 40), st.integers(0, 99)
)
def test_windows_for_evaluation_and_for_training(over: list[int], context: int, horizon: int, seed: int) -> None:
    times = horizon + np.array(over)
    which, starts = rolling_windows(times, context, horizon)
    for k, length in enumerate(times):
        own = starts[which == k]
        assert own[-1] + horizon == length
        assert (np.diff(own) == horizon).all()
        assert len(own) <= 20
        assert own[0] >= min(context, length - horizon)
        # One more would lack context, or be the 21st.
        assert len(own) == 20 or own[0] - horizon < context
    draws = list(range(seed, seed + len(times)))
    drawn = random_starts(times, context, horizon, seed, draws)
    assert (drawn >= np.minimum(context, times - horizon)).all()
    assert (drawn + horizon <= times).all()
    # Each draw is its own, whatever else is drawn with it.
    np.testing.assert_array_equal(drawn[-1:], random_starts(times[-1:], context, horizon, seed, draws[-1:]))


def test_training_windows_begin_anywhere() -> None:
    drawn = random_starts(np.full(4000, 20), 10, 4, 0, range(4000))
    assert np.bincount(drawn, minlength=17)[10:].min() > 400
    assert set(random_starts(np.full(2000, 8), 10, 4, 0, range(2000))) == {4}  # as much context as there is
    assert len(set(random_starts(np.full(2000, 16), 10, 4, 0, range(2000)))) == 3


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_rolls_over_every_series(
    path: Path, samples: list[SeriesSample], in_memory: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "KEEP_IN_MEMORY_BYTES", 2**30 if in_memory else 0)
    data = StoreDataModule(str(path), num_workers=workers)
    data.context, data.horizon = CONTEXT, HORIZON
    loader = data.loader("val", batch_size=7)
    batches = list(loader)
    which = loader.dataset.samples
    assert which.tolist() == [4] * 20 + [2] * 9 + [0] * 5 + [1] + [3]
    row = 0
    for batch in batches:
        for k in range(batch.num_graphs):
            assert_window(batch, k, samples[which[row]])
            row += 1
    assert row == 36


def test_an_epoch_has_one_window_of_every_series(path: Path, samples: list[SeriesSample]) -> None:
    data = StoreDataModule(str(path), batch_size=2, train_samples=4)
    data.context, data.horizon = CONTEXT, HORIZON
    torch.manual_seed(0)
    epochs = []
    for _ in range(2):
        epochs.append(list(data.train_dataloader()))
        assert [data.batches.turn().samples for _ in range(2)] == [2, 2]
    for batches in epochs:
        assert sorted(torch.cat([batch.group for batch in batches]).tolist()) == [0, 1, 2, 4]
        for batch in batches:
            for k in range(batch.num_graphs):
                assert_window(batch, k, samples[int(batch.group[k])])
    starts = [{int(g): int(s) for b in batches for g, s in zip(b.group, b.start, strict=True)} for batches in epochs]
    assert starts[0] != starts[1]


def test_a_batch_travels_and_can_be_cut(path: Path) -> None:
    store = Store(path)
    batch = series_batch(store.take(np.arange(5)), store.metadata("freq"), CONTEXT, HORIZON)
    arrived = pickle.loads(pickle.dumps(Parcel(batch)))  # noqa: S301
    few = first_systems(batch, 2)
    assert few.num_graphs == 2
    for name, values in batch.to_dict().items():
        assert torch.equal(arrived[name], values)
        assert torch.equal(few[name], values[: 3 if name == "ptr" else 2])
    assert torch.equal(batch[3].past, batch.past[3:4])
    assert batch.to("cpu", torch.float32).num_graphs == 5


def test_a_horizon_longer_than_a_series_is_named(path: Path) -> None:
    with pytest.raises(UserError, match=r"sample 3 has 5 steps, which leaves none before a horizon of 5"):
        SeriesDataset(Store(path), np.array([4, 3, 0]), CONTEXT, 5, rolling=True)
    assert len(SeriesDataset(Store(path), np.array([4, 3, 0]), CONTEXT, 4, rolling=False)) == 3
