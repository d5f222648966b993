from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.neighborlist import neighbor_list

from scisci.generate.keating import Bond, Keating
from scisci.generate.xtb_crystals import BONDS, LATTICE, SITES, arrange

NEWTON_PER_METRE = units.kJ / 1000 / units.m**2
# Martin's constants for diamond, and the elastic constants in GPa that they were fitted to.
DIAMOND = 3.567, Bond(3.567 * np.sqrt(3) / 4, 129.33 * NEWTON_PER_METRE, 84.76 * NEWTON_PER_METRE)
MEASURED = {"bulk": 442.0, "tetragonal": 951.0, "C44": 577.0}


def curvature(a: float, bond: Bond, strain: np.ndarray, relax: bool = False) -> float:
    """Second derivative, GPa, of the energy per volume of a crystal of 8 atoms along a strain of the cube."""
    crystal = bulk("C", "diamond", a, cubic=True)
    field, energies = Keating(crystal.get_scaled_positions(), crystal.numbers, {(6, 6): bond}), []
    for size in (1e-3, -1e-3):
        shape = np.eye(3) + size * strain
        cell, positions = crystal.cell @ shape, crystal.positions @ shape
        positions = field.relax(positions, cell) if relax else positions
        energies.append(field.energy_and_gradient(positions, cell)[0])
    return float(sum(energies) / 1e-6 / crystal.get_volume() / units.GPa)


def elastic(a: float, bond: Bond) -> dict[str, float]:
    shear = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    return {
        "bulk": curvature(a, bond, np.eye(3)) / 9,
        "tetragonal": curvature(a, bond, np.diag([1.0, -1.0, 0.0])) / 2,
        "C44": curvature(a, bond, shear, relax=True),
    }


@pytest.mark.parametrize(("a", "bond"), [DIAMOND, (LATTICE["BP"], Bond(LATTICE["BP"] * np.sqrt(3) / 4, 4.26, 1.49))])
def test_elastic_constants_are_martins(a: float, bond: Bond) -> None:
    alpha, beta = bond.alpha / units.GPa, bond.beta / units.GPa
    expected = {
        "bulk": (3 * alpha + beta) / (3 * a),
        "tetragonal": 4 * beta / a,
        "C44": 4 * alpha * beta / (alpha + beta) / a,
    }
    assert elastic(a, bond) == pytest.approx(expected, rel=1e-3)


def test_published_constants_of_diamond_give_its_elastic_constants() -> None:
    assert elastic(*DIAMOND) == pytest.approx(MEASURED, rel=0.01)


@pytest.fixture
def alloy() -> tuple[Keating, Atoms]:
    rng = np.random.default_rng(1)
    numbers = arrange({"CC": 12, "BN": 12, "BP": 8}, rng)
    cell = 7.6 * (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    atoms = Atoms(numbers, SITES @ cell + rng.normal(0, 0.05, SITES.shape), cell=cell, pbc=True)
    return Keating(SITES, numbers, BONDS), atoms


def slow_energy(atoms: Atoms) -> float:
    """Keating's energy by loops over ASE's neighbours."""
    first, second, vectors = neighbor_list("ijD", atoms, 2.4)
    kinds = [BONDS[min(a, b), max(a, b)] for a, b in zip(atoms.numbers[first], atoms.numbers[second], strict=True)]
    energy = 0.0
    for bond, r in zip(kinds, vectors, strict=True):
        energy += 0.5 * 3 * bond.alpha / (8 * bond.length**2) * (r @ r - bond.length**2) ** 2
    for i in range(len(atoms)):
        around = np.flatnonzero(first == i)
        assert len(around) == 4
        for p, q in combinations(around, 2):
            dd = kinds[p].length * kinds[q].length
            beta = np.sqrt(kinds[p].beta * kinds[q].beta)
            energy += 3 * beta / (8 * dd) * (vectors[p] @ vectors[q] + dd / 3) ** 2
    return energy


def test_energy_of_an_alloy_is_the_sum_over_its_bonds_and_angles(alloy: tuple[Keating, Atoms]) -> None:
    field, atoms = alloy
    assert field.energy_and_gradient(atoms.positions, atoms.cell[:])[0] == pytest.approx(slow_energy(atoms), rel=1e-10)
    assert len(field.bonds) == 256
    assert set(field.bonds) == set(BONDS)


def test_gradient_is_the_slope_of_the_energy(alloy: tuple[Keating, Atoms]) -> None:
    field, atoms = alloy
    gradient = field.energy_and_gradient(atoms.positions, atoms.cell[:])[1]
    direction = np.random.default_rng(2).normal(size=gradient.shape)
    steps = atoms.positions + 1e-5 * np.array([1, -1])[:, None, None] * direction
    up, down = field.energy_and_gradient(steps, atoms.cell[:])[0]
    assert (up - down) / 2e-5 == pytest.approx((gradient * direction).sum(), rel=1e-7)


def test_relaxed_alloy_has_no_forces_and_less_energy(alloy: tuple[Keating, Atoms]) -> None:
    field, atoms = alloy
    before, _ = field.energy_and_gradient(atoms.positions, atoms.cell[:])
    after, gradient = field.energy_and_gradient(field.relax(atoms.positions, atoms.cell[:]), atoms.cell[:])
    assert after < before
    assert abs(gradient).max() < 1e-4


def test_thermal_energy_is_half_kt_per_mode_and_the_crystal_stays_where_it_is(alloy: tuple[Keating, Atoms]) -> None:
    field, atoms = alloy
    cell, temperature = atoms.cell[:], 5.0
    minimum = field.relax(atoms.positions, cell)
    rng = np.random.default_rng(3)
    drawn = np.array([field.thermal(minimum, cell, temperature, rng) for _ in range(30)])
    np.testing.assert_allclose((drawn - minimum).sum(axis=1), 0.0, atol=1e-6)
    above = field.energy_and_gradient(drawn, cell)[0] - field.energy_and_gradient(minimum, cell)[0]
    modes = 3 * len(atoms) - 3
    # The mean of 30 sums of 189 squares has a relative standard deviation of 1.9 %.
    assert above.mean() == pytest.approx(modes * units.kB * temperature / 2, rel=0.08)


def test_positions_that_are_no_minimum_are_refused(alloy: tuple[Keating, Atoms]) -> None:
    field, atoms = alloy
    with pytest.raises(RuntimeError, match="not a minimum"):
        field.thermal(atoms.positions * 0.7, atoms.cell[:] * 0.7, 300.0, np.random.default_rng(0))
