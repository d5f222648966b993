"""What every architecture must satisfy, over the registry. A new model is covered by being registered."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scisci.contracts.metrics import SYMMETRY_GROUPS
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.potential import Potential, parameter_counts
from scisci.symmetry.actions import ACTIONS, act
from scisci.symmetry.measure import symmetry_errors

ELEMENTS = (1, 6, 7, 8)
ARCHITECTURES = registry.architectures()
VARIANTS = [
    *((name, {}, "gradient") for name in ARCHITECTURES),
    *((name, {}, "direct") for name in ARCHITECTURES),
    ("nequip", {"l_max": 0}, "gradient"),
    ("nequip", {"l_max": 2, "layers": 3}, "gradient"),
    ("nequip", {"l_max": 2, "layers": 3, "parity": True}, "gradient"),
    ("nequip", {"l_max": 1, "parity": True}, "direct"),
]
GRADIENT = [v for v in VARIANTS if v[2] == "gradient"]


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def make(name: str, overrides: dict[str, Any], forces: str) -> Potential:
    # Built in float32 and turned to float64 later, as a trained model is when its symmetry is measured.
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(3)
    backbone = registry.build(name, Inputs(ELEMENTS), 7.0, **registry.options(name, "3k", overrides))
    model = Potential(backbone, (-1.0, -2.0, -3.0, -4.0), 0.7, forces)  # type: ignore[arg-type]
    torch.set_default_dtype(torch.float64)
    return model.double().eval()


def batch_of(*systems: tuple[list[int], Any], cell: Any = None, cutoff: float = 5.0) -> Any:
    lengths = [len(numbers) for numbers, _ in systems]
    samples = {"group": np.zeros(len(systems), int)}
    if cell is not None:
        samples |= {"cell": np.asarray(cell)[None], "pbc": np.ones((1, 3), bool)}
    ragged = Ragged(
        np.concatenate([[0], np.cumsum(lengths)]),
        {
            "numbers": np.concatenate([numbers for numbers, _ in systems]).astype("u1"),
            "positions": np.concatenate([np.asarray(p, dtype=float) for _, p in systems]),
        },
        samples,
    )
    batch = graph_batch(ragged, cutoff)
    # Positions in full precision; the loader stores float32.
    batch.pos = torch.from_numpy(ragged.items["positions"])
    if cell is not None:
        images = torch.linalg.solve(torch.as_tensor(cell).T, batch.edge_shift.double().T).T.round()
        batch.edge_shift = images @ torch.as_tensor(cell, dtype=torch.float64)
    return batch


def double(batch: Any) -> Any:
    batch = copy.copy(batch)
    batch.pos, batch.edge_shift = batch.pos.double(), batch.edge_shift.double()
    return batch


def water(rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
    return [8, 1, 1], np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + rng.normal(scale=0.05, size=(3, 3))


@pytest.mark.parametrize(("name", "overrides", "forces"), VARIANTS)
def test_claimed_symmetries_hold_and_others_are_broken(
    name: str, overrides: dict[str, Any], forces: str, molecules: Any
) -> None:
    model = make(name, overrides, forces)
    errors = symmetry_errors(model, [double(molecules)])
    for group in SYMMETRY_GROUPS:
        worst = max(errors[f"symmetry_{group}_{q}"].value for q in ("energy", "forces"))
        if model.symmetry[group] == "exact":
            assert worst < 1e-10, (group, worst)
        else:
            # The measurement itself must see the lack of a symmetry that is not claimed.
            assert worst > 1e-4, (group, worst)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_claims_name_every_group(name: str) -> None:
    claims = registry.get(name).symmetry
    assert set(claims) == set(ACTIONS) == set(SYMMETRY_GROUPS)
    assert set(claims.values()) <= {"exact", "approximate", "learned", "none"}


@pytest.mark.parametrize(("name", "overrides", "forces"), GRADIENT)
def test_forces_are_minus_the_finite_difference_gradient(
    name: str, overrides: dict[str, Any], forces: str, molecules: Any
) -> None:
    model, batch, h = make(name, overrides, forces), double(molecules), 1e-4
    found = model(batch)["forces"]
    direction = torch.randn(batch.pos.shape, generator=torch.Generator().manual_seed(0))

    def energy(step: float) -> Tensor:
        moved = copy.copy(batch)
        moved.pos = batch.pos + step * direction
        return model(moved)["interaction"]

    # Fourth-order central difference along a random direction, system by system.
    slope = (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)
    work = torch.zeros_like(slope).index_add(0, batch.batch, (found * direction).sum(1))
    torch.testing.assert_close(-work, slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "overrides", "forces"), GRADIENT)
def test_energy_is_twice_differentiable_at_the_cutoff(name: str, overrides: dict[str, Any], forces: str) -> None:
    model = make(name, overrides, forces)

    def energy(distance: float) -> float:
        system = [6, 8, 1], [[0, 0, 0], [0, 0, distance], [1.0, 0.2, 0.1]]
        return float(model(batch_of(system))["interaction"])

    h = 1e-3
    inside = [energy(5.0 - k * h) for k in range(4)]
    outside = [energy(5.0 + k * h) for k in range(4)]
    # Beyond the cutoff nothing changes; inside, value, slope and curvature vanish like (5 - r)^3.
    assert max(outside) == pytest.approx(min(outside), abs=1e-13)
    scale = abs(energy(2.0) - energy(5.5))
    assert abs(inside[1] - outside[0]) < 1e-6 * scale + 1e-13
    assert abs(inside[2] - 2 * inside[1] + inside[0]) / h**2 < 0.1 * scale


@pytest.mark.parametrize(("name", "overrides", "forces"), VARIANTS)
def test_a_system_alone_equals_the_system_in_a_batch(
    name: str, overrides: dict[str, Any], forces: str, molecules: Any
) -> None:
    model, batch = make(name, overrides, forces), double(molecules)
    together = model(batch)
    for k in range(batch.num_graphs):
        single = type(batch).from_data_list([batch[k]])
        alone = model(single)
        torch.testing.assert_close(alone["energy"][0], together["energy"][k], rtol=1e-12, atol=1e-12)
        rows = slice(int(batch.ptr[k]), int(batch.ptr[k + 1]))
        torch.testing.assert_close(alone["forces"], together["forces"][rows], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "overrides", "forces"), GRADIENT)
def test_energies_of_distant_parts_add_up(name: str, overrides: dict[str, Any], forces: str) -> None:
    model, rng = make(name, overrides, forces), np.random.default_rng(0)
    (numbers_a, a), (numbers_b, b) = water(rng), water(rng)
    apart = np.concatenate([a, b + np.array([50.0, 0, 0])])
    both = model(batch_of((numbers_a + numbers_b, apart)))["energy"][0]
    parts = model(batch_of((numbers_a, a), (numbers_b, b)))["energy"].sum()
    torch.testing.assert_close(both, parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "overrides", "forces"), VARIANTS)
def test_one_atom_and_symmetric_or_collinear_structures_have_finite_gradients(
    name: str, overrides: dict[str, Any], forces: str
) -> None:
    model = make(name, overrides, forces).train()
    square = [6] * 4, [[0, 0, 0], [1.5, 0, 0], [1.5, 1.5, 0], [0, 1.5, 0]]
    line = [1, 6, 6, 1], [[0, 0, -1.66], [0, 0, -0.6], [0, 0, 0.6], [0, 0, 1.66]]
    outputs = model(batch_of(([8], [[0.0, 0, 0]]), square, line))
    assert outputs["forces"].shape == (9, 3)
    (outputs["forces"].square().sum() + outputs["interaction"].sum()).backward()
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    alone = model.eval()(batch_of(([8], [[0.0, 0, 0]])))
    assert torch.isfinite(alone["energy"]).all()
    if forces == "gradient":
        assert alone["forces"].abs().max() == 0


@pytest.mark.parametrize(("name", "overrides", "forces"), GRADIENT)
def test_periodic_images_are_the_same_system(name: str, overrides: dict[str, Any], forces: str) -> None:
    model, rng = make(name, overrides, forces), np.random.default_rng(1)
    cell = np.diag([4.0, 4.5, 5.0]) + rng.normal(scale=0.3, size=(3, 3))
    numbers, positions = [6, 8, 1], rng.uniform(0, 4, (3, 3))
    one = model(batch_of((numbers, positions), cell=cell))
    wrapped = positions + np.array([[1, 0, -2], [0, 3, 0], [0, 0, 1]]) @ cell
    same = model(batch_of((numbers, wrapped), cell=cell))
    torch.testing.assert_close(one["interaction"], same["interaction"], rtol=1e-9, atol=1e-10)
    double_cell = cell * np.array([[2.0], [1.0], [1.0]])
    two = model(batch_of((numbers * 2, np.concatenate([positions, positions + cell[0]])), cell=double_cell))
    torch.testing.assert_close(two["interaction"], 2 * one["interaction"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(two["forces"][:3], one["forces"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_span_two_and_a_half_decades_and_match_their_names(name: str) -> None:
    counts = {}
    for size in registry.get(name).SIZES:
        backbone = registry.build(name, Inputs(ELEMENTS), 7.0, **registry.options(name, size))
        total, body = parameter_counts(Potential(backbone, (0.0,) * 4, 1.0))
        assert body < total
        counts[size] = total
        named = float(size.replace("k", "e3").replace("M", "e6"))
        assert 0.75 < total / named < 1.33, (size, total)
    assert max(counts.values()) / min(counts.values()) > 10**2.5
    assert list(counts.values()) == sorted(counts.values())


def test_action_undone_is_the_identity_on_labels(molecules: Any) -> None:
    rng = np.random.default_rng(0)
    for group in ACTIONS:
        acted, undo = act(group, molecules, rng)
        back = undo({"forces": acted.forces, "interaction": acted.energy})
        torch.testing.assert_close(back["forces"], molecules.forces, atol=1e-6, rtol=1e-5)
