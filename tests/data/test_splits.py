from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.data.library import datasets, open_dataset, read_card
from scisci.data.module import StoreDataModule
from scisci.data.samples import AtomsSample, CloudSample, ParticlesSample
from scisci.data.splits import group_split, leaks, random_split
from scisci.data.store import Store
from scisci.data.writer import StoreWriter

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


@given(samples=st.integers(5, 500), seed=st.integers(0, 100))
def test_random_split_uses_every_sample_once(samples: int, seed: int) -> None:
    parts = random_split(samples, FRACTIONS, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(samples))
    assert abs(len(parts["train"]) - 0.6 * samples) <= 1


@given(groups=st.lists(st.integers(0, 30), min_size=40, max_size=200), seed=st.integers(0, 100))
def test_group_split_never_divides_a_group(groups: list[int], seed: int) -> None:
    labels = np.array([*groups, *range(5)])
    parts = group_split(labels, FRACTIONS, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    owners = [{int(g) for g in labels[indices]} for indices in parts.values()]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]


@pytest.mark.parametrize("fractions", [{}, {"train": 0.0}, {"train": 0.8, "test": 0.3}, {"train": -1.0}])
def test_impossible_fractions_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(UserError, match="not possible"):
        random_split(100, fractions)


@pytest.mark.parametrize("name", sorted(n for n, folder in datasets().items() if (folder / "data.h5").exists()))
def test_shipped_data_set_is_as_its_card_says_and_does_not_leak(name: str) -> None:
    store = open_dataset(name)
    store.verify()
    assert read_card(name).differences(store) == []
    assert leaks(store) == []


def test_leaks_are_found(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.h5", "atoms") as writer:
        for i in range(6):
            writer.append(AtomsSample(np.array([1]), np.zeros((1, 3)), energy=0.0), f"g{i % 2}")
        writer.split("train", np.array([0, 2]), "none")
        writer.split("test", np.array([2, 3]), "none")
        writer.split("ood_molecule", np.array([1, 4]), "group", disjoint=True)
    found = leaks(Store(tmp_path / "x.h5"))
    assert found == [
        "splits 'test' and 'train' share samples",
        "split 'ood_molecule' shares the group 'g0' with 'train'",
    ]


def test_training_subsets_are_nested(shipped: Store) -> None:
    subsets = [StoreDataModule(train_samples=n).train_indices().tolist() for n in (16, 64, 0.5, None)]
    for small, large in zip(subsets[:-1], subsets[1:], strict=True):
        assert large[: len(small)] == small
    assert [len(s) for s in subsets] == [16, 64, 8192, 16384]


@pytest.mark.parametrize("wanted", [0, -3, 0.0, 1.5, 20_000])
def test_impossible_training_subset_is_refused(wanted: float) -> None:
    with pytest.raises(UserError, match="not possible"):
        StoreDataModule(train_samples=wanted).train_indices()


def test_store_of_another_domain_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.h5", "cloud") as writer:
        writer.append(CloudSample(np.zeros((4, 3))), "a")
    with pytest.raises(UserError, match="domain 'cloud', this task needs 'atoms'"):
        StoreDataModule(str(tmp_path / "x.h5")).check()


@pytest.mark.parametrize("absent", ["velocities", "charges", "target_positions"])
def test_particles_without_what_training_needs_are_refused(tmp_path: Path, absent: str) -> None:
    fields = {"velocities": np.zeros((4, 3)), "charges": np.ones(4), "target_positions": np.zeros((4, 3))}
    with StoreWriter(tmp_path / "x.h5", "particles") as writer:
        writer.append(ParticlesSample(np.zeros((4, 3)), **{n: v for n, v in fields.items() if n != absent}), "a")
    with pytest.raises(UserError, match=f"has no {absent}"):
        StoreDataModule(str(tmp_path / "x.h5")).check("particles")


def test_store_without_forces_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.h5", "atoms") as writer:
        writer.append(AtomsSample(np.array([1]), np.zeros((1, 3)), energy=0.0), "a")
    with pytest.raises(UserError, match="has no forces"):
        StoreDataModule(str(tmp_path / "x.h5")).check()
