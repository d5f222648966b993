"""The particle-mesh code against closed forms, linear theory and colossus; halos against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from colossus.cosmology import cosmology as colossus
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from scisci.generate import particle_mesh
from scisci.generate.growth import HUBBLE, OMEGA_B, TILT, Cosmology
from scisci.generate.halos import CRITICAL_DENSITY, find_halos, friends_of_friends, particle_mass
from scisci.generate.particle_mesh import Box, CloudInCell, displacements, force, lattice, linear_density, simulate

SMALL = Box(side=100.0, particles=16, mesh=48, steps=4)
LINEAR = Cosmology(omega_m=0.3, sigma_8=0.01)  # so smooth that only linear growth is left


def colossus_model(model: Cosmology) -> colossus.Cosmology:
    parameters = {"H0": 100 * HUBBLE, "Ob0": OMEGA_B, "ns": TILT, "Om0": model.omega_m, "sigma8": model.sigma_8}
    return colossus.Cosmology(name="test", flat=True, relspecies=False, persistence="", **parameters)


@pytest.mark.parametrize("omega_m", [0.1, 0.3, 0.5])
def test_growth_agrees_with_colossus(omega_m: float) -> None:
    ours, theirs = Cosmology(omega_m, 0.8), colossus_model(Cosmology(omega_m, 0.8))
    for a in (0.1, 0.3, 0.7, 1.0):
        assert ours.growth(a)[0] == pytest.approx(theirs.growthFactor(1 / a - 1), rel=1e-4)
        assert ours.expansion(a) == pytest.approx(theirs.Ez(1 / a - 1), rel=1e-6)


def test_growth_of_matter_alone_is_a_power() -> None:
    d1, rate1, d2, rate2 = Cosmology(1.0, 0.8).growth(0.3)
    assert (d1, rate1) == pytest.approx((0.3, 0.3), rel=1e-6)
    assert (d2, rate2) == pytest.approx((-3 / 7 * 0.09, -6 / 7 * 0.09), rel=1e-6)


def test_second_order_growth_follows_its_published_approximation() -> None:
    # Bouchet et al. 1995, eq. 31: better than 0.5 % in flat universes.
    d1, _, d2, _ = Cosmology(0.3, 0.8).growth(1.0)
    assert d2 == pytest.approx(-3 / 7 * d1**2 * 0.3 ** (-1 / 143), rel=5e-3)


def test_the_spectrum_has_the_stated_amplitude() -> None:
    model = Cosmology(0.25, 0.9)
    k = np.geomspace(1e-4, 1e2, 20_000)
    window = 3 * (np.sin(8 * k) - 8 * k * np.cos(8 * k)) / (8 * k) ** 3
    variance = np.trapezoid(k**3 * model.linear_power(k) * window**2 / (2 * np.pi**2), np.log(k))
    assert math.sqrt(variance) == pytest.approx(0.9, rel=2e-3)


def waves(amplitude: float, axes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Transform of amplitude x the sum of cosines along `axes` on SMALL's grid, and the grid's points."""
    grid = torch.arange(16, dtype=torch.float32) * (100 / 16)
    points = torch.cartesian_prod(grid, grid, grid)
    density = amplitude * torch.cos(2 * math.pi / 100 * points[:, list(axes)]).sum(1)
    return torch.fft.rfftn(density.view(16, 16, 16)), points


def test_one_plane_wave_has_no_second_order() -> None:
    density, points = waves(0.3, (0,))
    first, second = displacements(density, SMALL)
    k = 2 * math.pi / 100
    torch.testing.assert_close(first[:, 0], -0.3 / k * torch.sin(k * points[:, 0]), atol=1e-4, rtol=0)
    assert first[:, 1:].abs().max() < 1e-4
    assert second.abs().max() < 1e-5


def test_two_crossed_waves_collapse_faster_at_second_order() -> None:
    # φ1 = -A/k² (cos kx + cos ky): ∇²φ2 = A² cos kx cos ky, so ψ2 = A²/2k (sin kx cos ky, cos kx sin ky, 0).
    density, points = waves(0.3, (0, 1))
    first, second = displacements(density, SMALL)
    k = 2 * math.pi / 100
    x, y = k * points[:, 0], k * points[:, 1]
    expected = torch.stack([torch.sin(x) * torch.cos(y), torch.cos(x) * torch.sin(y), 0 * x], 1) * 0.09 / (2 * k)
    torch.testing.assert_close(second, expected, atol=1e-4, rtol=0)
    d1, _, d2, _ = (float(v) for v in Cosmology(0.3, 0.8).growth(0.5))
    near = (x > 0) & (x < 0.5) & (y == 0)  # beside the peak at the origin both terms lead towards it
    assert (d1 * first[near, 0] < 0).all()
    assert (d2 * second[near, 0] < 0).all()


def test_forces_of_a_linear_wave_are_its_displacement() -> None:
    density, _ = waves(0.001, (2,))
    first, _ = displacements(density, SMALL)
    pulled = force(lattice(SMALL) + first, SMALL)
    # The assignment of mass smooths a wave of 48 cells by sinc²(1/48), twice.
    smooth = float(np.sinc(1 / 48) ** 4)
    torch.testing.assert_close(pulled[:, 2], smooth * first[:, 2], atol=5e-3 * float(first.abs().max()), rtol=0)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_linear_growth_is_exact_however_few_the_steps(steps: int) -> None:
    box = replace(SMALL, side=400.0, steps=steps)
    positions, velocities = simulate(LINEAR, box, seed=3)
    moved = positions - lattice(box)
    moved -= 400 * torch.round(moved / 400)
    expected = long_waves(displacements(linear_density(LINEAR, box, 3), box)[0])
    assert (long_waves(moved) - expected).norm() < 0.02 * expected.norm()
    rate = 100 * float(LINEAR.growth(1.0)[1])  # v = a H f D ψ
    assert (long_waves(velocities) - rate * expected).norm() < 0.02 * rate * expected.norm()


def long_waves(field: torch.Tensor) -> torch.Tensor:
    """The longest modes of a field [16³, 3] on the lattice, which neither mesh nor lattice disturbs."""
    modes = torch.fft.fftn(field.view(16, 16, 16, 3), dim=(0, 1, 2))
    order = torch.fft.fftfreq(16, 1 / 16)
    return modes[torch.cartesian_prod(order, order, order).norm(dim=1).view(16, 16, 16) <= 1]


def test_momentum_is_conserved_and_runs_are_reproducible() -> None:
    model = Cosmology(0.3, 0.8)
    positions, velocities = simulate(model, SMALL, seed=1)
    assert velocities.mean(0).abs().max() < 1e-4 * velocities.std()
    again = simulate(model, SMALL, seed=1)
    assert torch.equal(positions, again[0])
    assert not torch.equal(positions, simulate(model, SMALL, seed=2)[0])
    assert positions.min() >= 0
    assert positions.max() < SMALL.side


def test_painting_conserves_mass_and_reading_is_its_adjoint() -> None:
    generator = torch.Generator().manual_seed(0)
    places = CloudInCell(10 * torch.rand(200, 3, generator=generator), 8, 10.0)
    density = places.paint()
    assert float(density.sum()) == pytest.approx(0, abs=1e-2)
    field = torch.randn(8, 8, 8, generator=generator)
    painted = (density + 1) * 200 / 8**3
    assert float((painted * field).sum()) == pytest.approx(float(places.read(field).sum()), rel=1e-4)


def test_large_scales_follow_the_linear_spectrum() -> None:
    model, box = Cosmology(0.3, 0.8), Box(side=500.0, particles=32, mesh=64, steps=6)
    positions, _ = simulate(model, box, seed=5)
    grown = torch.fft.rfftn(CloudInCell(positions, 32, box.side).paint())
    initial = linear_density(model, box, 5)
    k = 2 * math.pi * np.fft.fftfreq(32, box.side / 32)
    size = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.abs(k[None, None, :17]) ** 2)
    low = torch.from_numpy((size > 0) & (size < 0.05))
    ratio = float((grown[low].abs().square().sum() / initial[low].abs().square().sum()).sqrt())
    assert ratio == pytest.approx(1, abs=0.05)


def test_a_wrong_sign_of_second_order_loses_halos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set out late, where second order is large, the right sign makes as many halos as an early start does."""
    right = displacements

    def halos(start: float, sign: int) -> int:
        box = Box(side=64.0, particles=32, mesh=64, steps=6, start=start)
        signed = lambda *given: (lambda first, second: (first, sign * second))(*right(*given))
        monkeypatch.setattr(particle_mesh, "displacements", signed)
        runs = (simulate(Cosmology(0.3, 0.8), box, seed) for seed in range(3))
        return sum(len(find_halos(x.numpy(), v.numpy(), box.side).members) for x, v in runs)

    early, late, wrong = halos(0.05, 1), halos(0.25, 1), halos(0.25, -1)
    assert late == pytest.approx(early, rel=0.08)
    assert wrong < 0.85 * late


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_friends_are_those_of_all_pairs(count: int, seed: int) -> None:
    positions = np.random.default_rng(seed).random((count, 3)) * 7
    apart = positions[:, None] - positions
    apart -= 7 * np.rint(apart / 7)
    near = np.linalg.norm(apart, axis=-1) <= 0.5 * 7 / count ** (1 / 3)
    groups, labels = friends_of_friends(positions, 7.0, linking=0.5)
    number, expected = connected_components(near)
    assert groups == number
    np.testing.assert_array_equal(labels[:, None] == labels, expected[:, None] == expected)


def test_a_halo_across_the_faces_is_whole() -> None:
    rng = np.random.default_rng(0)
    background = np.stack(np.meshgrid(*[np.arange(10) * 10.0 + 5] * 3), -1).reshape(-1, 3)
    clump = rng.normal(0, 0.3, (40, 3)) % 100
    velocities = np.concatenate([np.zeros_like(background), np.tile([1.0, 2.0, 3.0], (40, 1))])
    halos = find_halos(np.concatenate([background, clump]), velocities, 100.0)
    assert halos.members.tolist() == [40]
    offset = halos.positions[0] - 100 * np.rint(halos.positions[0] / 100)
    assert np.abs(offset).max() < 0.3
    np.testing.assert_allclose(halos.velocities, [[1, 2, 3]])
    assert halos.masses(2.0)[0] == pytest.approx(2 * 40 * (1 - 40**-0.6))


def test_particles_hold_all_the_matter() -> None:
    assert particle_mass(0.3, 100.0, 64) * 64**3 == pytest.approx(0.3 * CRITICAL_DENSITY * 1e6)
