"""Penalties are squared relative errors; strengths settle where the closed form says, and tell symmetries apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.conformance.systems import ELEMENTS, batch_of, molecules
from scisci.models.potential import Potential
from scisci.symmetry.measure import symmetry_errors
from scisci.symmetry.penalty import SoftEquivariance, equivariance_penalty


def spring(batch: Any) -> dict[str, Tensor]:
    """Forces of harmonic pairs, exactly equivariant."""
    senders, receivers = batch.edge_index
    vectors = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
    return {"forces": torch.zeros_like(batch.pos).index_add(0, receivers, 4 * vectors)}


def along_z(batch: Any) -> dict[str, Tensor]:
    return {"forces": torch.tensor([0.0, 0.0, 3.0]).expand_as(batch.pos)}


def test_penalty_has_the_value_of_the_closed_form() -> None:
    """|z - Rᵀz|² averages to 2 over SO(3) and to 0 over rotations about z; harmonic pairs have no error."""
    rng, random = np.random.default_rng(0), np.random.default_rng(1)
    batch = batch_of(*(([1, 1], random.normal(size=(2, 3))) for _ in range(2000)))
    found = equivariance_penalty(along_z, batch, "rotation", rng, ["forces"])
    # |z - Rᵀz|² = 2 - 2 cos is uniform on [0, 4].
    assert abs(float(found) - 2) < 5 * (4 / 12**0.5) / 4000**0.5
    assert float(equivariance_penalty(along_z, batch, "axial-z", rng, ["forces"])) < 1e-12
    assert float(equivariance_penalty(spring, batch, "orthogonal", rng, ["forces"])) < 1e-24


def test_scale_of_outputs_gives_no_gradient() -> None:
    """Outputs twice as large have the same penalty; it cannot be lowered by an invariant part added to them."""
    scale = torch.ones((), requires_grad=True)
    batch = batch_of(([1, 1, 1], np.random.default_rng(0).normal(size=(3, 3))))

    def model(b: Any) -> dict[str, Tensor]:
        return {"forces": along_z(b)["forces"] + scale * spring(b)["forces"]}

    penalty = equivariance_penalty(model, batch, "rotation", np.random.default_rng(0), ["forces"])
    assert torch.autograd.grad(penalty, scale)[0].abs() < 1e-6 * penalty


def flip(group: str, batch: Tensor, rng: np.random.Generator) -> tuple[Tensor, Any]:
    """The group {1, -1} on numbers, under which outputs should not change."""
    return -batch, lambda outputs: outputs


class Angle(nn.Module):
    """(cos t, x sin t): of norm 1 at x = ±1, with a penalty of 4 sin² t under x -> -x."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(start).double())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": torch.stack([torch.cos(self.t).expand_as(x), x * torch.sin(self.t)], dim=1)}


@pytest.mark.parametrize(("wanted", "between"), [(0.8, (0.5, 0.8)), (0.05, (0.0, 0.01))])
def test_strength_and_model_settle_where_the_objective_is_stationary(
    wanted: float, between: tuple[float, float]
) -> None:
    """Task (t - wanted)² / 2: a clear violation is left standing, a slight one is taken away."""
    weight, floor = 0.02, 1e-3
    x, model = torch.tensor([1.0, -1.0, 1.0]).double(), Angle(wanted)
    soft = SoftEquivariance(["flip"], ["y"], weight, floor, memory=0.5, action=flip)
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-3)
    for _ in range(2000):
        optimizer.zero_grad()
        (0.5 * (model.t - wanted) ** 2 + soft(model, x, np.random.default_rng(0))).backward()
        optimizer.step()

    def slope(t: float) -> float:
        """Of (t - wanted)² / 2 + weight log(4 sin² t + floor)."""
        return t - wanted + weight * 8 * np.sin(t) * np.cos(t) / (4 * np.sin(t) ** 2 + floor)

    settled = brentq(slope, *between)
    assert float(model.t.detach()) == pytest.approx(settled, rel=1e-4)
    assert soft.strengths["flip"] == pytest.approx(weight / (4 * np.sin(settled) ** 2 + floor), rel=1e-4)


class Features(nn.Module):
    """Linear in invariants, a chiral product, and components of three arms that single out axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(11).double())

    def forward(self, batch: Any) -> dict[str, Tensor]:
        arms = batch.pos.unflatten(0, (-1, 4))
        arms = arms[:, 1:] - arms[:, :1]
        squares = arms.square().sum(2)
        chiral = torch.linalg.det(arms)[:, None]
        components = torch.cat([arms.sum(1), (arms[:, 0] * arms[:, 1]), arms[:, :1, 0] * arms[:, 1:2, 2]], dim=1)
        return {"y": torch.cat([squares, chiral, components], dim=1) @ self.weights}


SIGNAL = {"chiral": {3: 1.0}, "field along z": {6: 1.5}}


@pytest.mark.parametrize(
    ("truth", "kept", "broken"), [("chiral", "rotation", "reflection"), ("field along z", "axial-z", "rotation")]
)
def test_strengths_tell_what_the_data_have_from_what_they_lack(truth: str, kept: str, broken: str) -> None:
    """A regression from few noisy samples, whose truth is invariant under one group and not under the other."""
    rng = np.random.default_rng(0)

    def data(count: int) -> tuple[Any, Tensor]:
        batch, exact = batch_of(*(([1] * 4, rng.normal(size=(4, 3))) for _ in range(count))), Features()
        with torch.no_grad():
            exact.weights[:3] = 0.5
            for k, value in SIGNAL[truth].items():
                exact.weights[k] = value
            return batch, exact(batch)["y"]

    (batch, clean), (held_out, expected) = data(24), data(500)
    labels = clean + 0.5 * torch.from_numpy(rng.normal(size=24))

    def error(soft: SoftEquivariance | None) -> float:
        model, draws = Features(), np.random.default_rng(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(500):
            optimizer.zero_grad()
            outputs = model(batch)
            loss = (outputs["y"] - labels).square().mean()
            (loss if soft is None else loss + soft(model, batch, draws, outputs)).backward()
            optimizer.step()
        with torch.no_grad():
            return float((model(held_out)["y"] - expected).square().mean())

    soft = SoftEquivariance([kept, broken], ["y"], weight=0.05, floor=1e-3, memory=0.9)
    softened = error(soft)
    assert soft.strengths[kept] > 10 * soft.strengths[broken]
    assert softened < 0.7 * error(None)


def test_strengths_travel_with_weights_and_rest_in_evaluation() -> None:
    x, model = torch.ones(2).double(), Angle(0.3)
    soft = SoftEquivariance(["flip"], ["y"], weight=0.1, floor=0.01, action=flip)
    assert soft.strengths == {"flip": pytest.approx(10.0)}
    soft(model, x, np.random.default_rng(0))
    first = soft.strengths["flip"]
    assert first == pytest.approx(0.1 / (4 * np.sin(0.3) ** 2 + 0.01))
    other = SoftEquivariance(["flip"], ["y"], weight=0.1, floor=0.01, action=flip)
    other.load_state_dict(soft.state_dict())
    assert other.strengths == soft.strengths
    soft.eval()(Angle(1.0), x, np.random.default_rng(0))
    assert soft.strengths["flip"] == first


def test_a_potential_that_follows_the_penalty_measures_as_more_symmetric() -> None:
    """On gradient forces, whose penalty is differentiated through the force; judged on elements it was not shown."""
    torch.manual_seed(0)
    backbone = registry.build("transformer", Inputs(ELEMENTS), 7.0, **registry.options("transformer", "3k"))
    model, batch = Potential(backbone, (0.0,) * 4, 1.0).double(), molecules(np.random.default_rng(0))

    def error() -> float:
        (found,) = symmetry_errors(model.eval(), [batch] * 8, 9, ["rotation"], {"forces": "forces"}).values()
        return found.value

    def penalty_now() -> float:
        found = [
            equivariance_penalty(model.eval(), batch, "rotation", np.random.default_rng(seed), ["forces"])
            for seed in range(8)
        ]
        return float(torch.stack(found).mean())

    before = error()
    assert penalty_now() == pytest.approx(before**2, rel=0.3)
    soft, rng = SoftEquivariance(["rotation"], ["interaction", "forces"]), np.random.default_rng(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(40):
        optimizer.zero_grad()
        soft(model, batch, rng).backward()
        optimizer.step()
    assert error() < before / 3
