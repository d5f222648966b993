"""Trained potentials as ASE calculators: the numbers of `predict`, true derivatives, conserved energy."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.tasks.calculator import ScisciCalculator
from scisci.tasks.cli import main
from scisci.tasks.evaluate import quantities, structures


def strained_copper() -> Atoms:
    """Four rattled atoms in a triclinic cell."""
    rng = np.random.default_rng(1)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.05, size=(4, 3))
    return atoms


def test_calculator_gives_what_predict_writes(copper_run: Path, crystals: Path) -> None:
    main(["predict", "--run", str(copper_run), "--trainer.enable_progress_bar=false"])
    store, calculator = Store(crystals), ScisciCalculator(copper_run)
    with h5py.File(copper_run / "predictions" / "test.h5") as file:
        for k, atoms in enumerate(structures(store.take(file["ids"][...]))):
            atoms.calc = calculator
            rows = slice(*file["offsets"][k : k + 2])
            assert atoms.get_potential_energy() == pytest.approx(file["energy"][k], abs=1e-4)
            np.testing.assert_allclose(atoms.get_forces(), file["forces"][rows], atol=1e-5)
            np.testing.assert_allclose(atoms.get_stress(voigt=False), file["stress"][k], atol=1e-6)
    assert k == 15


def test_every_kind_of_checkpoint_is_the_same_model(copper_run: Path) -> None:
    atoms, energies = strained_copper(), []
    # The best checkpoint has the weights that training ends in.
    for name in ("", "model.safetensors", "model.json", "checkpoints/best.ckpt"):
        atoms.calc = ScisciCalculator(copper_run / name)
        energies.append(atoms.get_potential_energy())
        assert atoms.get_potential_energy(force_consistent=True) == energies[-1]
    assert max(energies) - min(energies) < 1e-5


def test_forces_and_stress_are_the_derivatives_of_the_energy(copper_run: Path) -> None:
    atoms = strained_copper()
    atoms.calc = ScisciCalculator(copper_run, dtype="float64")
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)
    assert np.abs(atoms.get_forces()).max() > 0.1
    assert np.abs(atoms.get_stress()).max() > 1e-3


def test_energy_is_conserved_and_its_fluctuation_falls_as_the_square_of_the_time_step(
    molecule_run: Path, small_store: Path
) -> None:
    store = Store(small_store)
    (start,) = structures(store.take(store.split("test").indices(1)))
    fluctuation, kinetic = [], 0.0
    for step in (0.5, 0.25):
        atoms = start.copy()
        atoms.calc = ScisciCalculator(molecule_run, dtype="float64")
        thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
        dynamics, energies = VelocityVerlet(atoms, step * units.fs), []
        for _ in range(round(100 / step)):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
        kinetic = max(kinetic, atoms.get_kinetic_energy())
        drift = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)[0]
        assert abs(drift) < 0.05 * kinetic * step**2
        fluctuation.append(np.std(energies))
    assert fluctuation[0] / fluctuation[1] == pytest.approx(4, rel=0.1)


def test_relaxation_of_atoms_and_cell_converges(copper_run: Path) -> None:
    atoms = strained_copper()
    atoms.calc = ScisciCalculator(copper_run, dtype="float64")
    before = atoms.get_potential_energy()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=200)
    assert atoms.get_potential_energy() < before
    assert np.abs(atoms.get_stress()).max() < 0.005


def test_direct_forces_have_no_stress_and_need_none(crystals: Path, tmp_path: Path) -> None:
    model = ["--model.architecture=painn", "--model.size=10k", "--model.forces=direct", "--model.symmetry_samples=0"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"]
    main(["fit", f"--data.dataset={crystals}", f"--runs={tmp_path}", *model, *steps])
    calculator = ScisciCalculator(next(tmp_path.iterdir()))
    assert calculator.implemented_properties == ["energy", "free_energy", "forces"]
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_stress(strained_copper())
    assert quantities(Store(crystals), calculator) == ("energy", "forces")
    assert np.abs(calculator.get_forces(strained_copper())).max() > 0


def test_what_a_model_cannot_do_is_said(copper_run: Path, particle_store: Path, tmp_path: Path) -> None:
    calculator = ScisciCalculator(copper_run)
    with pytest.raises(UserError, match=r"atomic numbers \[1, 8\], but the model was trained on \[29\]"):
        calculator.get_potential_energy(molecule("H2O"))
    with pytest.raises(PropertyNotImplementedError, match="periodic in all directions"):
        calculator.get_stress(Atoms("Cu2", [[0, 0, 0], [2, 0, 0]]))
    with pytest.raises(UserError, match="no checkpoint at"):
        ScisciCalculator(tmp_path / "nowhere.ckpt")
    with pytest.raises(UserError, match="dtype is 'half'"):
        ScisciCalculator(copper_run, dtype="half")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no trained model in"):
        ScisciCalculator(tmp_path)
    options = ["--model.architecture=egnn", "--model.size=3k", "--trainer.max_steps=1", "--model.symmetry_samples=0"]
    main(["fit", f"--data.dataset={particle_store}", f"--runs={tmp_path}", *options])
    with pytest.raises(UserError, match="holds no interatomic potential"):
        ScisciCalculator(next(tmp_path.iterdir()))
