from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from scisci.data import parcel, store
from scisci.data.module import StoreDataModule
from scisci.data.parcel import Parcel
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter


def assert_same(batch: Batch, other: Batch) -> None:
    assert type(batch) is type(other)
    assert batch.keys() == other.keys()
    for name in batch.keys():  # noqa: SIM118
        assert batch[name].dtype == other[name].dtype
        assert torch.equal(batch[name], other[name]), name
    for one, two in zip(batch.to_data_list(), other.to_data_list(), strict=True):
        assert one.to_dict().keys() == two.to_dict().keys()
        assert all(torch.equal(one[name], two[name]) for name in one.to_dict())


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("crystals") / "x.h5"
    with StoreWriter(path, "atoms") as writer:
        for atoms in rng.integers(1, 9, 40):
            writer.append(
                AtomsSample(
                    rng.choice([14, 32], atoms),
                    rng.uniform(0, 1, (atoms, 3)) * 6,
                    cell=np.diag([6.0, 6.5, 7.0]) + rng.normal(scale=0.3, size=(3, 3)),
                    pbc=rng.integers(0, 2, 3).astype(bool),
                    energy=float(rng.normal()),
                    forces=rng.normal(size=(atoms, 3)),
                ),
                "a",
            )
        writer.split("train", np.arange(40), "none")
        writer.split("val", np.arange(7), "none")
    return path


def loader(path: Path, workers: int, cutoff: float) -> torch.utils.data.DataLoader:
    data = StoreDataModule(str(path), num_workers=workers)
    data.cutoff = cutoff
    return data.loader("train", batch_size=6)


@pytest.mark.parametrize("cutoff", [0.0, 4.0])
@pytest.mark.parametrize(("in_memory", "piped"), [(True, True), (False, True), (False, False)])
def test_workers_deliver_what_the_process_itself_would_load(
    crystals: Path, cutoff: float, in_memory: bool, piped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "KEEP_IN_MEMORY_BYTES", 2**30 if in_memory else 0)
    monkeypatch.setattr(parcel, "PIPED_BYTES", 2**19 if piped else 0)
    loaded = []
    for workers in (0, 2):
        found = loader(crystals, workers, cutoff)
        loaded.append([*found, *found])
    assert len(loaded[0]) == len(loaded[1]) == 14
    for alone, delivered in zip(*loaded, strict=True):
        assert_same(alone, delivered)
        assert ("edge_index" in delivered) == (cutoff > 0)


def test_a_delivered_batch_can_be_written_to_and_sent_on(crystals: Path) -> None:
    batch = next(iter(loader(crystals, 0, 4.0)))
    arrived = pickle.loads(pickle.dumps(Parcel(batch)))  # noqa: S301
    assert_same(arrived, batch)
    arrived.pos += 1
    arrived.energy *= 2
    torch.testing.assert_close(arrived.pos - 1, batch.pos)
    assert_same(pickle.loads(pickle.dumps(arrived)), arrived)  # noqa: S301
    assert_same(arrived.clone().to("cpu", torch.float32), arrived)


def test_every_sample_is_loaded_once_an_epoch_and_in_another_order_the_next(crystals: Path) -> None:
    data = StoreDataModule(str(crystals), batch_size=5)
    data.cutoff = 0.0
    shuffled = data.train_dataloader()
    epochs = []
    for _ in range(2):
        epochs.append(torch.cat([batch.energy for batch in shuffled]))
        assert [data.batches.turn().samples for _ in range(8)] == 8 * [5]
    stored = data.store.take(data.train_indices()).samples["energy"]
    for energies in epochs:
        np.testing.assert_array_equal(np.sort(energies.numpy()), np.sort(stored))
    assert not torch.equal(*epochs)
    assert math.isclose(float(torch.cat([b.energy for b in data.loader("val")]).sum()), stored[:7].sum())
