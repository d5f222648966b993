"""Cloud models: what enters and leaves them turns, is scaled and pooled as it should, whatever the backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.cloud import Cloud, Field, Target, inputs_of

FIELDS = (Field("masses", "scalar", 2.0), Field("velocities", "vector", 0.5))
TARGETS = (
    Target("forces", "vector", 3.0),
    Target("charges", "scalar", 0.1, 7.0),
    Target("omega_m", "system", 0.1, 0.3),
)
BOX, CUTOFF = np.array([6.0, 7.0, 8.0]), 2.5
EXACT = [name for name in registry.architectures("cloud") if registry.get(name).symmetry["rotation"] == "exact"]


@pytest.fixture(autouse=True)
def float64():
    """Features are float64 from the start, so that no rounding hides or makes a difference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def cloud(
    architecture: str, fields: tuple[Field, ...] = FIELDS, targets: tuple[Target, ...] = TARGETS, **overrides: Any
) -> Cloud:
    options = registry.options(architecture, "3k", {"cutoff": CUTOFF, **overrides})
    return Cloud(registry.build(architecture, inputs_of(fields), 5.0, **options), fields, targets).eval()


def points(counts: tuple[int, ...] = (9, 1, 14), seed: int = 0) -> Ragged:
    rng, total = np.random.default_rng(seed), sum(counts)
    items = {
        "positions": rng.uniform(0, 1, (total, 3)) * BOX,
        "velocities": rng.normal(size=(total, 3)),
        "masses": rng.uniform(0.5, 2, total),
    }
    return Ragged(np.concatenate([[0], np.cumsum(counts)]), items, {"group": np.arange(len(counts))})


def in_box(ragged: Ragged) -> Ragged:
    return Ragged(ragged.offsets, ragged.items, ragged.samples | {"box": np.tile(BOX, (len(ragged), 1))})


def with_items(ragged: Ragged, **items: np.ndarray) -> Ragged:
    return Ragged(ragged.offsets, ragged.items | items, ragged.samples)


def outputs(model: Cloud, ragged: Ragged) -> dict[str, np.ndarray]:
    batch = graph_batch(ragged, CUTOFF)
    # The loader stores float32; here all digits count.
    for name in ("velocities", "masses"):
        batch[name] = torch.from_numpy(ragged.items[name])
    batch.pos = torch.from_numpy(ragged.items["positions"])
    batch.edge_shift = batch.edge_shift.double()
    with torch.no_grad():
        return {name: values.numpy() for name, values in model(batch).items()}


def agree(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-10) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name)


@pytest.mark.parametrize("architecture", EXACT)
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "reflection"])
def test_outputs_turn_with_positions_and_velocities(architecture: str, sign: int) -> None:
    """The whole way from samples: neighbours are found anew in the turned and moved cloud."""
    model, ragged = cloud(architecture), points()
    by = sign * Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    turned = {name: ragged.items[name] @ by.T for name in ("positions", "velocities")}
    turned["positions"] = turned["positions"] + np.array([3.0, -1.0, 2.0])
    plain = outputs(model, ragged)
    if registry.get(architecture).symmetry["reflection"] == "exact" or sign == 1:
        agree(outputs(model, with_items(ragged, **turned)), plain | {"forces": plain["forces"] @ by.T})
    # Turning the positions alone is another cloud.
    other = outputs(model, with_items(ragged, positions=turned["positions"]))
    assert np.abs(other["forces"] - plain["forces"] @ by.T).max() > 1e-3


def test_backbone_with_scalars_alone_keeps_its_symmetry() -> None:
    """Without vectors of its own it can only stretch those that points carry, and refuses where they carry none."""
    model, ragged = cloud("nequip", l_max=0), points()
    by = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    turned = with_items(ragged, **{name: ragged.items[name] @ by.T for name in ("positions", "velocities")})
    plain = outputs(model, ragged)
    agree(outputs(model, turned), plain | {"forces": plain["forces"] @ by.T})
    assert np.abs(np.cross(plain["forces"], ragged.items["velocities"])).max() < 1e-12
    with pytest.raises(UserError, match="choose l_max 1 or higher"):
        cloud("nequip", FIELDS[:1], l_max=0)


@pytest.mark.parametrize("architecture", registry.architectures("cloud"))
def test_every_architecture_predicts_points_and_systems(architecture: str) -> None:
    model, ragged = cloud(architecture), in_box(points())
    batch = graph_batch(ragged, CUTOFF)
    found = model(batch)
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "forces": (24, 3),
        "charges": (24,),
        "omega_m": (3,),
    }
    sum(values.square().sum() for values in found.values()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    # All points are of one kind, so a backbone's only unused weights would be those of a head that nothing reaches.
    assert not [name for name in missing if name.startswith("heads")]


@pytest.mark.parametrize("architecture", ["egnn", "mpnn", "painn"])
def test_points_that_leave_the_box_come_back_on_the_other_side(architecture: str) -> None:
    model, ragged = cloud(architecture), in_box(points())
    moved = ragged.items["positions"] + BOX * np.array([0.4, -0.3, 0.2])
    plain = outputs(model, ragged)
    agree(outputs(model, with_items(ragged, positions=moved % BOX)), plain, 1e-9)
    isolated = outputs(model, points())
    assert np.abs(isolated["forces"] - plain["forces"]).max() > 1e-3


@pytest.mark.parametrize("architecture", ["egnn", "transformer"])
def test_systems_are_means_over_their_points(architecture: str) -> None:
    """Two copies of a cloud far from each other are, as a system, that cloud; and points do not see the difference."""
    model, one = cloud(architecture), points((9,))
    far = {name: np.concatenate([values, values]) for name, values in one.items.items()}
    far["positions"] = far["positions"] + np.repeat([[0.0], [100.0]], 9, axis=0)
    plain, twice = outputs(model, one), outputs(model, Ragged(np.array([0, 18]), far, one.samples))
    np.testing.assert_allclose(twice["omega_m"], plain["omega_m"], rtol=1e-12)
    np.testing.assert_allclose(twice["forces"], np.tile(plain["forces"], (2, 1)), rtol=0, atol=1e-10)


def test_scales_are_units() -> None:
    """Velocities and masses in other units with other scales are the same; so are predictions, in theirs."""
    ragged, reference = points(), cloud("egnn")
    other = cloud(
        "egnn",
        (Field("masses", "scalar", 20.0), Field("velocities", "vector", 5.0)),
        (
            Target("forces", "vector", 6.0),
            Target("charges", "scalar", 0.2, -1.0),
            Target("omega_m", "system", 0.1, 1.3),
        ),
    )
    other.load_state_dict(reference.state_dict())
    plain = outputs(reference, ragged)
    tenfold = {name: 10 * ragged.items[name] for name in ("masses", "velocities")}
    expected = {
        "forces": 2 * plain["forces"],
        "charges": 2 * (plain["charges"] - 7.0) - 1.0,
        "omega_m": plain["omega_m"] + 1.0,
    }
    agree(outputs(other, with_items(ragged, **tenfold)), expected)


@pytest.mark.parametrize("architecture", ["egnn", "mpnn"])
def test_free_motion_is_within_reach(architecture: str) -> None:
    """A point alone goes on as it did: the head can learn d = t v exactly, for any speed and direction."""
    model = cloud(architecture, FIELDS, (Target("forces", "vector"),))
    optimizer, rng = torch.optim.Adam(model.parameters(), lr=0.01), np.random.default_rng(0)
    for step in range(400):
        ragged = points((1,) * 32, seed=step)
        batch = graph_batch(ragged, CUTOFF)
        loss = (model(batch)["forces"] - 0.7 * batch.velocities).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ragged = with_items(points((1,) * 64, seed=1000), velocities=rng.normal(size=(64, 3)))
    missed = outputs(model, ragged)["forces"] - 0.7 * ragged.items["velocities"]
    assert np.square(missed).mean() < 0.01 * 0.49
