"""Primal-dual steps end at the multipliers and models that the conditions of Karush, Kuhn and Tucker give."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from torch import Tensor

from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.conformance.systems import ELEMENTS, batch_of
from scisci.models.potential import Potential
from scisci.symmetry.actions import act
from scisci.symmetry.constrained import InvarianceConstraint, transformed_loss


def mirror(group: str, batch: Tensor, rng: np.random.Generator) -> tuple[Tensor, Any]:
    return -batch, lambda outputs: outputs


@pytest.mark.parametrize("bound", [0.8, 1.2, 3.0])
def test_multiplier_of_a_mirrored_line(bound: float) -> None:
    """Fit y = 1 at x = 1 by t x, with the mirrored loss (t + 1)² / 2 below bound² / 2.

    The constraint is t <= bound - 1. From (t - 1) + m (t + 1) = 0 the multiplier is (2 - bound) / bound, or zero
    where the best t = 1 satisfies the constraint by itself.
    """
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    constraint = InvarianceConstraint({"mirror": bound**2 / 2}, rate=0.05, action=mirror)
    optimizer, x, rng = torch.optim.SGD([t], lr=0.2), torch.ones(1).double(), np.random.default_rng(0)

    def loss(batch: Tensor) -> Tensor:
        return 0.5 * (t * batch - 1).square()

    for _ in range(1200):
        optimizer.zero_grad()
        (loss(x).mean() + constraint(loss, x, rng)).backward()
        optimizer.step()
    assert float(t.detach()) == pytest.approx(min(bound - 1, 1.0), abs=1e-6)
    assert constraint.strengths["mirror"] == pytest.approx(max(0.0, (2 - bound) / bound), abs=1e-5)


def heights(batch: Any, t: Tensor) -> Tensor:
    """Losses [B] of fitting the label 1 by t z, for one point per system."""
    return 0.5 * (t * batch.pos[:, 2] - 1).square()


@pytest.fixture(scope="module")
def upright() -> Any:
    """Systems of one point on the north pole of the unit sphere; rotated, its height is uniform on [-1, 1]."""
    return batch_of(*[([1], [[0.0, 0, 1]])] * 1000)


def test_multiplier_under_random_rotations(upright: Any) -> None:
    """E (t z - 1)² / 2 = (t² / 3 + 1) / 2 over rotations: a bound of 13 / 24 asks for t = 1/2 and m = 3 (1 - t) / t.

    The label does not turn, so that augmentation at full strength would drive t to zero.
    """
    t = torch.ones((), dtype=torch.float64, requires_grad=True)
    constraint = InvarianceConstraint({"rotation": 13 / 24}, rate=1.0)
    optimizer, rng = torch.optim.SGD([t], lr=0.1), np.random.default_rng(0)
    path = []
    for _ in range(700):
        optimizer.zero_grad()
        (heights(upright, t).mean() + constraint(lambda b: heights(b, t), upright, rng)).backward()
        optimizer.step()
        path.append((float(t.detach()), constraint.strengths["rotation"]))
    settled = np.mean(path[300:], axis=0)
    assert settled[0] == pytest.approx(0.5, rel=0.02)
    assert settled[1] == pytest.approx(3.0, rel=0.02)


def test_more_draws_approach_the_density_proportional_to_the_loss(upright: Any) -> None:
    """Under that density the mean is E[loss²] / E[loss]: (t⁴/5 + 2 t² + 1) / (2 (t²/3 + 1)) here."""
    t, rng = torch.tensor(1.0).double(), np.random.default_rng(0)
    exact = float((t**4 / 5 + 2 * t**2 + 1) / (2 * (t**2 / 3 + 1)))
    uniform = float((t**2 / 3 + 1) / 2)

    def found(draws: int) -> float:
        return float(transformed_loss(lambda b: heights(b, t), upright, "rotation", rng, draws))

    assert found(1) == pytest.approx(uniform, rel=0.05)
    assert found(64) == pytest.approx(exact, rel=0.02)
    assert uniform < found(4) < exact


def test_labels_turn_with_equivariant_samples(upright: Any) -> None:
    """A model that moves its point outwards is equivariant: its loss does not grow, and the multiplier stays zero."""
    batch = copy.copy(upright)
    batch.forces = 2 * batch.pos
    constraint = InvarianceConstraint({"orthogonal": 1e-9}, rate=1.0)
    constraint(lambda b: (2 * b.pos - b.forces).square().sum(1), batch, np.random.default_rng(0))
    assert constraint.strengths == {"orthogonal": 0.0}


def test_multipliers_travel_with_weights_and_rest_in_evaluation(upright: Any) -> None:
    constraint, t = InvarianceConstraint({"rotation": 0.1}, rate=0.5), torch.tensor(1.0).double()
    constraint(lambda b: heights(b, t), upright, np.random.default_rng(0))
    moved = constraint.strengths["rotation"]
    assert moved == pytest.approx(0.5 * (2 / 3 - 0.1), rel=0.1)
    other = InvarianceConstraint({"rotation": 0.1})
    other.load_state_dict(constraint.state_dict())
    other.eval()(lambda b: heights(b, t), upright, np.random.default_rng(0))
    assert other.strengths["rotation"] == moved


def test_a_potential_is_held_to_its_bound() -> None:
    """Forces of molecules in one orientation, learnt by an unconstrained backbone; the bound is on all others.

    Fitted alone it is missed; constrained it holds, and the multiplier, no longer needed, falls again.
    """
    rng = np.random.default_rng(0)
    found = [molecule(name) for name in ("H2CO", "CH3CH2OH", "CH3CONH2")]
    batch = batch_of(*((m.numbers, m.positions + rng.normal(scale=0.05, size=m.positions.shape)) for m in found))
    batch.forces = 0.1 * spring_forces(batch)

    def turned_loss(rate: float) -> tuple[float, list[float]]:
        """In units of the loss before training, with the multiplier's path."""
        torch.manual_seed(0)
        backbone = registry.build("transformer", Inputs(ELEMENTS), 7.0, **registry.options("transformer", "3k"))
        model = Potential(backbone, (0.0,) * 4, 1.0).double().train()

        def loss(b: Any) -> Tensor:
            return (model(b)["forces"] - b.forces).square().mean()

        before, rng, path = float(loss(batch).detach()), np.random.default_rng(0), []
        constraint = InvarianceConstraint({"rotation": 0.1 * before}, rate / before)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            (loss(batch) + constraint(loss, batch, rng)).backward()
            optimizer.step()
            path.append(constraint.strengths["rotation"])
        turned = [float(loss(act("rotation", batch, rng)[0]).detach()) for _ in range(20)]
        return float(np.mean(turned)) / before, path

    assert turned_loss(0.0)[0] > 0.1
    turned, path = turned_loss(2.0)
    assert turned < 0.1
    assert 0 < path[0] < max(path)
    assert path[-1] < 0.8 * max(path)


def spring_forces(batch: Any) -> Tensor:
    senders, receivers = batch.edge_index
    vectors = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
    weights = (1 - vectors.square().sum(1, keepdim=True) / 25) ** 3
    return torch.zeros_like(batch.pos).index_add(0, receivers, weights * vectors)
