from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from scisci.data.library import read_card
from scisci.data.store import Store
from scisci.generate import xtb_molecules as source
from scisci.generate.xtb import calculator

MOLECULE, FRAMES = "NH3", 3


def frames_of(store: Store, molecule: str, temperature: float) -> np.ndarray:
    """Store indices of a trajectory, in time order."""
    chosen = (store.sample_column("group") == store.groups.index(molecule)) & (
        store.metadata("temperature") == temperature
    )
    indices = np.flatnonzero(chosen)
    return indices[np.argsort(store.metadata("time")[indices])]


def test_plan_is_what_the_card_says() -> None:
    chosen = source.molecules()
    assert len(chosen["train"]) >= 24
    assert len(chosen["ood_molecule"]) >= 6
    assert not set(chosen["train"]) & set(chosen["ood_molecule"])
    sizes: dict[str, int] = {}
    for parts in source.plan().values():
        for split, part in parts.items():
            sizes[split] = sizes.get(split, 0) + part.stop - part.start
    assert sizes == {name: split.samples for name, split in read_card("xtb-molecules").splits.items()}


def test_training_trajectories_are_divided_in_time_with_gaps(shipped: Store) -> None:
    time, group = shipped.metadata("time"), shipped.sample_column("group")
    members = {name: shipped.split(name).indices() for name in ("train", "val", "test")}
    for molecule in np.unique(group[members["train"]]):
        span = {n: time[i[group[i] == molecule]] for n, i in members.items()}
        gap = source.GAP_FRAMES * source.STRIDE_FS
        assert span["val"].min() - span["train"].max() > gap
        assert span["test"].min() - span["val"].max() > gap


def test_larger_molecules_are_larger_than_any_in_train(shipped: Store) -> None:
    train, large = (shipped.take(shipped.split(n).indices()) for n in ("train", "ood_size"))
    assert large.lengths.min() > train.lengths.max()


def test_trajectory_is_remade_from_its_seed(shipped: Store) -> None:
    made = source.trajectory(MOLECULE, 300.0, FRAMES)
    stored = shipped.take(frames_of(shipped, MOLECULE, 300.0)[:FRAMES])
    # The dynamics is chaotic: another processor's rounding grows over the first picosecond.
    np.testing.assert_allclose(stored.items["positions"].reshape(FRAMES, -1, 3), made.positions, atol=1e-3)
    np.testing.assert_allclose(stored.samples["energy"], made.energies, atol=1e-3)


@pytest.mark.parametrize("split", ["train", "ood_1200K", "ood_size"])
def test_labels_are_those_of_the_stored_positions(shipped: Store, split: str) -> None:
    ragged = shipped.take(shipped.split(split).indices(4))
    for k in range(4):
        rows = slice(ragged.offsets[k], ragged.offsets[k + 1])
        atoms = Atoms(ragged.items["numbers"][rows], ragged.items["positions"][rows].astype(float))
        atoms.calc = calculator(source.METHOD)
        assert atoms.get_potential_energy() == pytest.approx(ragged.samples["energy"][k], abs=2e-5)
        np.testing.assert_allclose(atoms.get_forces(), ragged.items["forces"][rows], atol=1e-4)


def test_forces_are_minus_the_gradient_of_the_energy(shipped: Store) -> None:
    ragged = shipped.take(shipped.split("test").indices(1))
    atoms = Atoms(ragged.items["numbers"], ragged.items["positions"].astype(float))
    atoms.calc = calculator(source.METHOD)
    h = 1e-3
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * h
            moved.calc = calculator(source.METHOD)
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * h)
        assert -slope == pytest.approx(ragged.items["forces"][atom, axis], abs=5e-4)


def test_references_explain_the_energies_best(shipped: Store) -> None:
    ragged = shipped.take(shipped.split("train").indices())
    counts = np.stack(
        [np.add.reduceat((ragged.items["numbers"] == z).astype(float), ragged.offsets[:-1]) for z in (1, 6, 7, 8)], 1
    )
    expected, *_ = np.linalg.lstsq(counts, ragged.samples["energy"], rcond=None)
    np.testing.assert_allclose(shipped.references["energy"][[1, 6, 7, 8]], expected, atol=1e-8)
    assert np.isfinite(shipped.references["energy"]).sum() == 4


def test_generation_is_quiet_and_leaves_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {split: slice(i, i + 1) for i, split in enumerate(source.SHIFTS)}
    monkeypatch.setattr(source, "plan", lambda seed: {(MOLECULE, 300.0): parts})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    source.generate(tmp_path / "x.h5", processes=1)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert capfd.readouterr().out == ""
    assert len(Store(tmp_path / "x.h5")) == len(parts)


def test_where_a_molecule_comes_apart_another_trajectory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def trajectory(molecule: str, temperature: float, frames: int, seed: int) -> int:
        tried.append(seed)
        if seed < intact:
            raise source.CameApartError(f"{molecule} came apart at {temperature} K")
        return seed

    monkeypatch.setattr(source, "trajectory", trajectory)
    intact = 9
    assert source._job((MOLECULE, 1200.0, 1, 7)) == 9
    assert tried == [7, 8, 9]
    intact = 99
    with pytest.raises(source.CameApartError, match="came apart at 1200"):
        source._job((MOLECULE, 1200.0, 1, 7))
