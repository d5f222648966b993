from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from scisci.contracts.errors import UserError
from scisci.data.batch import first_systems, graph_batch
from scisci.data.neighbors import ALL_PAIRS_UP_TO
from scisci.data.ragged import Ragged
from scisci.data.samples import CloudSample, ParticlesSample, Sample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter


def test_batch_tensors_hold_the_samples(shipped: Store) -> None:
    indices = shipped.split("ood_size").indices(5)
    ragged = shipped.take(indices)
    batch = graph_batch(ragged, 5.0)
    np.testing.assert_array_equal(batch.numbers.numpy(), ragged.items["numbers"])
    np.testing.assert_array_equal(batch.forces.numpy(), ragged.items["forces"])
    assert batch.energy.dtype == torch.float64
    np.testing.assert_array_equal(batch.energy.numpy(), ragged.samples["energy"])
    assert batch.batch.bincount().tolist() == ragged.lengths.tolist()


@pytest.mark.parametrize("cutoff", [0.0, 5.0])
def test_batch_hands_out_single_systems_as_pyg_does(shipped: Store, cutoff: float) -> None:
    indices = shipped.split("test").indices(4)
    batch = graph_batch(shipped.take(indices), cutoff)
    alone = [graph_batch(shipped.take(indices[k : k + 1]), cutoff) for k in range(4)]
    names = ("numbers", "pos", "forces", "energy") + (("edge_index", "edge_shift") if cutoff else ())
    for data, single in zip(batch.to_data_list(), alone, strict=True):
        assert set(data.keys()) == {*names, "group"}
        for name in names:
            assert torch.equal(data[name], single[name]), name
    again = type(batch).from_data_list(batch.to_data_list())
    for name in (*names, "batch", "ptr"):
        assert torch.equal(again[name], batch[name]), name
    few = first_systems(batch, 2)
    assert few.num_graphs == 2
    assert torch.equal(few.pos, batch.pos[: batch.ptr[2]])


def test_batches_do_not_share_memory_with_each_other(shipped: Store) -> None:
    ragged = shipped.take(shipped.split("test").indices(3))
    first, second = graph_batch(ragged, 5.0), graph_batch(ragged, 5.0)
    untouched = second.clone()
    for name in first.keys():  # noqa: SIM118
        first[name].zero_()
    assert all(torch.equal(second[name], untouched[name]) for name in second.keys())  # noqa: SIM118
    assert ragged.items["positions"].any()


def test_element_the_model_does_not_know_is_named() -> None:
    ragged = Ragged(np.array([0, 2]), {"numbers": np.array([1, 16], "u1"), "positions": np.eye(3, dtype="f4")[:2]}, {})
    with pytest.raises(UserError, match=r"atomic numbers \[16\]"):
        graph_batch(ragged, 5.0, frozenset({1, 8}))


def stored(path: Path, domain: str, samples: list[Sample]) -> Store:
    with StoreWriter(path, domain) as writer:
        for number, sample in enumerate(samples):
            writer.append(sample, f"system {number}")
    return Store(path)


def particles(count: int, rng: np.random.Generator) -> ParticlesSample:
    charges = rng.choice([-1.0, 1.0], count)
    return ParticlesSample(
        rng.normal(size=(count, 3)), rng.normal(size=(count, 3)), charges, rng.normal(size=(count, 3))
    )


@pytest.mark.parametrize("count", [5, ALL_PAIRS_UP_TO + 2])
def test_particles_are_batched_as_complete_graphs(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    samples = [particles(n, rng) for n in (count, 1, 3)]
    batch = graph_batch(stored(tmp_path / "x.h5", "particles", samples).take(np.array([2, 0, 1])), math.inf)
    again = [samples[2], samples[0], samples[1]]
    for key, name in (("pos", "positions"), *((n, n) for n in ("velocities", "charges", "target_positions"))):
        expected = np.concatenate([getattr(sample, name) for sample in again]).astype(np.float32)
        assert batch[key].dtype == torch.float32
        np.testing.assert_array_equal(batch[key].numpy(), expected)
    pairs = [(s, r) for a, b in ((0, 3), (3, 3 + count)) for r in range(a, b) for s in range(a, b) if s != r]
    assert batch.edge_index.T.tolist() == [list(pair) for pair in pairs]
    assert batch.edge_ptr.tolist() == [0, 6, len(pairs), len(pairs)]
    assert batch.ptr.tolist() == [0, 3, 3 + count, 4 + count]
    assert torch.equal(batch[1].charges, batch.charges[3 : 3 + count])


def test_cloud_in_a_box_has_the_minimum_image_edges_of_ase(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    box = np.array([20.0, 25.0, 30.0])
    samples: list[Sample] = [
        CloudSample(rng.uniform(0, 1, (n, 3)) * box, box, rng.normal(size=(n, 3)), rng.uniform(1, 9, n) * 1e13, om, 0.8)
        for n, om in ((40, 0.2), (70, 0.4))
    ]
    batch = graph_batch(stored(tmp_path / "x.h5", "cloud", samples).take(np.arange(2)), 6.0)
    for k, sample in enumerate(samples):
        # What was stored is float32; a pair at the very cutoff would be judged differently.
        atoms = Atoms(np.ones(len(sample.positions)), sample.positions.astype("f4"), cell=box, pbc=True)
        found, (receiver, vector) = batch[k], neighbor_list("iD", atoms, 6.0)
        vectors = found.pos[found.edge_index[0]] + found.edge_shift - found.pos[found.edge_index[1]]
        assert found.edge_index[1].bincount().tolist() == np.bincount(receiver).tolist()
        order = np.lexsort(vectors.numpy().round(3).T), np.lexsort(vector.round(3).T)
        np.testing.assert_allclose(vectors.numpy()[order[0]], vector[order[1]], atol=1e-5)
        np.testing.assert_array_equal(found.cell[0].numpy(), np.diag(box))
        np.testing.assert_array_equal(found.masses.numpy(), sample.masses.astype("f4"))
    np.testing.assert_allclose(batch.omega_m, [0.2, 0.4])
    with pytest.raises(UserError, match="finite cutoff"):
        graph_batch(Store(tmp_path / "x.h5").take(np.arange(2)), math.inf)


def test_model_of_atoms_is_not_fed_particles(tmp_path: Path) -> None:
    store = stored(tmp_path / "x.h5", "particles", [particles(5, np.random.default_rng(0))])
    with pytest.raises(UserError, match="holds no atoms"):
        graph_batch(store.take(np.array([0])), 5.0, frozenset({1, 8}))
