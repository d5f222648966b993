"""Models under frame averaging pass the checks of exactly symmetric ones, and are what averaging by hand gives."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from torch import Tensor

from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.cloud import Cloud, Field, Target, inputs_of
from scisci.models.conformance import CHECKS, Subject, checks_for
from scisci.models.conformance.systems import ELEMENTS, batch_of, molecules
from scisci.models.framed import Framed, FramedPotential, claims
from scisci.models.potential import Potential
from scisci.symmetry.actions import act
from scisci.symmetry.frames import FULL, Frames
from scisci.symmetry.measure import PARTICLES, batch_as, symmetry_errors

BACKBONES = ("mpnn", "transformer")
# Of backbones alone ("sizes", "clouds"), or broken by frames of whole systems ("separation", below).
ELSEWHERE = ("sizes", "clouds", "separation")


@dataclass(frozen=True)
class FramedSubject(Subject):
    """A potential under frame averaging as the conformance checks see it."""

    frames: Frames = FULL

    def potential(self, **options: Any) -> FramedPotential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            backbone = self.backbone(Inputs(ELEMENTS), **options)
            return FramedPotential(backbone, (-1.0, -2, -3, -4), 0.7, self.forces, self.frames).double().eval()

    @property
    def symmetry(self) -> dict[str, str]:
        return claims(super().symmetry, self.frames)


def subject(name: str, forces: Any = "gradient", frames: Frames = FULL) -> FramedSubject:
    return FramedSubject(registry.get(name), registry.options(name, "3k"), forces, frames)


def unframed(framed: FramedPotential) -> Potential:
    """The same network without frames."""
    plain = Potential(framed.backbone, (-1.0, -2, -3, -4), 0.7, "direct" if framed.direct else "gradient")
    plain.load_state_dict(framed.state_dict())
    return plain.double().eval()


@pytest.mark.parametrize(
    ("name", "forces", "frames"),
    [
        ("mpnn", "gradient", Frames()),
        ("mpnn", "direct", Frames("rotation", "weighted")),
        ("transformer", "gradient", Frames("orthogonal", "weighted")),
        ("transformer", "direct", Frames("rotation")),
    ],
    ids=lambda value: f"{value.group}-{value.kind}" if isinstance(value, Frames) else value,
)
def test_conformance(name: str, forces: str, frames: Frames) -> None:
    """Symmetry to 1e-10, forces and stress by finite differences, smooth cutoff, periodicity, degenerate structures."""
    model = subject(name, forces, frames)
    assert model.symmetry["rotation"] == "exact"
    assert model.symmetry["reflection"] == ("exact" if frames.group == "orthogonal" else "none")
    checks = checks_for(model.architecture)
    outcomes = [outcome for check in checks if check not in ELSEWHERE for outcome in checks[check](model)]
    assert all(outcome.passed and np.isfinite(outcome.value) for outcome in outcomes), outcomes


@pytest.mark.parametrize("kind", ["full", "weighted"])
def test_single_precision_is_enough(kind: Any) -> None:
    """Weights must not meet what all frames agree on, or its rounding would show in forces."""
    model = subject("mpnn", frames=Frames(kind=kind)).potential().float()
    found = symmetry_errors(model, [batch_as(molecules(np.random.default_rng(0)), torch.float32)])
    assert max(error.value for error in found.values()) < 3e-5


def test_distant_parts_share_a_frame() -> None:
    """The price of frames of whole systems: what is far away turns the axes, and energies do not add."""
    (outcome,) = CHECKS["separation"](subject("transformer"))
    assert not outcome.passed
    assert outcome.value < 1e-2


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_outputs_are_means_over_signs(name: str, forces: str) -> None:
    """Axes from numpy and all signs from itertools, through the unframed model, one frame after the other."""
    model, batch = subject(name, forces).potential(), molecules(np.random.default_rng(0))
    plain, found = unframed(model), model(batch)
    for k in range(batch.num_graphs):
        single = type(batch).from_data_list([batch[k]])
        senders, receivers = single.edge_index
        edges = (single.pos[senders] - single.pos[receivers]).numpy()
        weights = (1 - (edges**2).sum(1) / 25.0) ** 3
        axes = np.linalg.eigh(edges.T @ (weights[:, None] * edges))[1]
        energies, turned_back = [], []
        for signs in itertools.product((1, -1), repeat=3):
            frame = torch.from_numpy(axes * signs)
            seen = copy.copy(single)
            seen.pos, seen.edge_shift = single.pos @ frame, single.edge_shift @ frame
            outputs = plain(seen)
            energies.append(float(outputs["interaction"][0]))
            turned_back.append(outputs["forces"] @ frame.T)
        rows = slice(int(batch.ptr[k]), int(batch.ptr[k + 1]))
        assert float(found["interaction"][k]) == pytest.approx(np.mean(energies), abs=1e-10)
        mean = torch.stack(turned_back).mean(0)
        if forces == "direct":
            torch.testing.assert_close(found["forces"][rows], mean, atol=1e-10, rtol=0)
        else:
            # Gradients frame by frame lack that of the frames: they are not the force of the averaged energy.
            assert (found["forces"][rows] - mean).norm() > 1e-3 * mean.norm()


def test_training_gradient_of_a_force_loss_is_exact() -> None:
    """The derivative of a loss on forces by the weights, against finite differences along a random direction."""
    model, batch = subject("mpnn").potential().train(), molecules(np.random.default_rng(1))
    weights = list(model.backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(weight.shape, generator=generator) for weight in weights]

    def loss(model: Potential) -> Tensor:
        return model(batch)["forces"].square().sum()

    def moved(step: float) -> float:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for weight, direction in zip(other.backbone.parameters(), directions, strict=True):
                weight += step * direction
        return float(loss(other.eval()))

    gradients = torch.autograd.grad(loss(model), weights, materialize_grads=True)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-6)


def test_one_random_frame_is_unbiased_in_training_and_absent_in_evaluation() -> None:
    draws, small = 256, molecule("H2CO")
    batch = batch_of(*[(small.numbers, small.positions + 0.1)] * draws)
    full, stochastic = (subject("transformer", frames=Frames(kind=k)).potential() for k in ("full", "stochastic"))  # type: ignore[arg-type]
    exact = full(batch)
    for name, values in stochastic(batch).items():
        torch.testing.assert_close(values, exact[name])
    torch.manual_seed(0)
    drawn = stochastic.train()(batch)
    assert len(drawn["interaction"].detach().unique()) > 1
    for name in ("interaction", "forces"):
        values = drawn[name].detach().unflatten(0, (draws, -1))
        expected = exact[name].unflatten(0, (draws, -1))[0]
        assert ((values.mean(0) - expected).abs() <= 5 * values.std(0) / draws**0.5 + 1e-10).all(), name


def test_point_clouds_become_equivariant_even_two_points_with_velocities() -> None:
    rng, fields = np.random.default_rng(2), (Field("charges", "scalar"), Field("velocities", "vector"))
    torch.manual_seed(0)
    backbone = registry.build("mpnn", inputs_of(fields), 5.0, channels=8, layers=2, cutoff=20.0)
    cloud = Cloud(backbone, fields, (Target("displacement", "vector"), Target("mass", "system"))).double().eval()
    cloud.requires_grad_(False)

    def worst(model: Any, *sizes: int) -> float:
        batch = batch_of(*((np.ones(n), rng.normal(size=(n, 3))) for n in sizes), cutoff=20.0)
        batch.velocities = torch.from_numpy(rng.normal(size=batch.pos.shape))
        batch.charges = torch.ones(len(batch.pos)).double()
        quantities = PARTICLES | {"mass": "mass"}
        found = symmetry_errors(model, [batch], groups=["rotation", "reflection"], quantities=quantities)
        return max(error.value for error in found.values())

    assert worst(cloud, 5, 8) > 1e-3
    assert worst(Framed(cloud), 5, 8) < 1e-10
    # Two points lie on a line, and velocities off it tell the axes apart that positions leave open.
    assert worst(Framed(cloud), 2, 2, 2) > 1e-6
    assert worst(Framed(cloud, vectors=("velocities",)), 1, 2, 5, 2) < 1e-10


def test_gradient_forces_without_the_frames_own_gradient_are_refused() -> None:
    with pytest.raises(AssertionError, match="FramedPotential"):
        Framed(unframed(subject("mpnn").potential()))


@pytest.fixture(scope="module")
def spreads() -> dict[tuple[str, str], float]:
    """(molecule, frames) → how far energies scatter when atoms move by 1e-6 Å, over the bare model's by orientation."""
    rng, found = np.random.default_rng(0), {}
    models = {kind: subject("transformer", frames=Frames(kind=kind)).potential() for kind in ("full", "weighted")}  # type: ignore[arg-type]
    bare = unframed(models["full"])
    for name in ("H2O", "CO2", "NH3", "CH4"):
        of = molecule(name)
        turned, _ = act("rotation", batch_of(*[(of.numbers, of.positions)] * 100), rng)
        shaken = batch_of(*((of.numbers, of.positions + 1e-6 * rng.normal(size=(len(of), 3))) for _ in range(100)))
        for kind, model in models.items():
            found[name, kind] = float(model(shaken)["interaction"].std() / bare(turned)["interaction"].std())
    return found


def test_what_happens_at_degenerate_structures(spreads: dict[tuple[str, str], float]) -> None:
    """Smooth where frames are determined or do not matter (lines); a jump, smaller with weights, where they turn."""
    for name in ("H2O", "CO2"):
        assert spreads[name, "full"] < 1e-4
        assert spreads[name, "weighted"] < 1e-4
    for name in ("NH3", "CH4"):
        assert spreads[name, "full"] > 1e-3
        assert spreads[name, "weighted"] < 0.75 * spreads[name, "full"]
