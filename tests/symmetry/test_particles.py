"""Actions on particles: everything with a direction turns, every place moves, every row follows its point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.symmetry.actions import ACTIONS, act
from scisci.symmetry.measure import PARTICLES, as_dtype, symmetry_errors

BOTH = PARTICLES | {"places": "positions"}


@pytest.fixture
def systems() -> Any:
    """Six systems of 1 to 8 particles, in float64."""
    rng, counts = np.random.default_rng(0), np.array([5, 1, 8, 3, 2, 6])
    total = counts.sum()
    items = {
        "positions": rng.normal(size=(total, 3)) * 2,
        "velocities": rng.normal(size=(total, 3)),
        "charges": rng.choice([-1.0, 1.0], total),
        "target_positions": rng.normal(size=(total, 3)) * 2,
    }
    batch = graph_batch(Ragged(np.concatenate([[0], np.cumsum(counts)]), items, {"group": np.arange(6)}), np.inf)
    return as_dtype(nn.Identity(), batch, torch.float64)[1]


def coulomb(batch: Any) -> dict[str, Tensor]:
    """A step of the particles' own physics: exactly E(3)-equivariant in positions, velocities and charges."""
    senders, receivers = batch.edge_index
    apart = batch.pos[receivers] - batch.pos[senders]
    strength = batch.charges[senders] * batch.charges[receivers] / apart.norm(dim=1) ** 3
    force = torch.zeros_like(batch.pos).index_add(0, receivers, strength[:, None] * apart)
    displacement = 0.7 * batch.velocities + 0.1 * force
    return {"displacement": displacement, "positions": batch.pos + displacement}


def truth(batch: Any) -> dict[str, Tensor]:
    """The labels themselves, as predictions."""
    return {"displacement": batch.target_positions - batch.pos, "positions": batch.target_positions}


@pytest.mark.parametrize("model", [coulomb, truth])
def test_physics_and_labels_have_no_error(systems: Any, model: Any) -> None:
    found = symmetry_errors(model, [systems], quantities=BOTH)
    assert set(found) == {f"symmetry_{group}_{quantity}" for group in ACTIONS for quantity in BOTH}
    for name, error in found.items():
        assert error.value < 1e-13, name


@pytest.mark.parametrize(
    ("broken", "groups"),
    [
        (lambda b: torch.ones_like(b.pos), {"rotation", "reflection"}),
        (lambda b: torch.linalg.cross(b.pos - b.target_positions, b.velocities), {"reflection"}),
        (lambda b: b.pos, {"translation"}),
        (lambda b: torch.arange(len(b.pos))[:, None] * b.velocities, {"permutation"}),
    ],
    ids=["axes", "handedness", "origin", "order"],
)
def test_what_is_broken_shows_in_its_group_alone(systems: Any, broken: Any, groups: set[str]) -> None:
    found = symmetry_errors(lambda b: {"displacement": broken(b)}, [systems], quantities=PARTICLES)
    shown = {group for group in ACTIONS if found[f"symmetry_{group}_positions"].value > 1e-10}
    assert shown == groups
    assert all(found[f"symmetry_{group}_positions"].value > 0.1 for group in groups)


@pytest.mark.parametrize("group", ["rotation", "reflection"])
def test_velocities_turn_with_positions_about_the_same_axis(systems: Any, group: str) -> None:
    """Angles between all that has a direction stay, lengths stay, charges stay."""
    acted, _ = act(group, systems, np.random.default_rng(1))

    def angles(batch: Any) -> Tensor:
        moved = batch.target_positions - batch.pos
        return torch.stack([(batch.velocities * moved).sum(1), moved.norm(dim=1), batch.velocities.norm(dim=1)])

    torch.testing.assert_close(angles(acted), angles(systems))
    assert torch.equal(acted.charges, systems.charges)
    assert not torch.allclose(acted.velocities, systems.velocities)


def test_precision_is_that_of_all_fields(systems: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        _, cast = as_dtype(nn.Identity(), systems, dtype)
        for name in ("pos", "velocities", "charges", "target_positions", "edge_shift"):
            assert cast[name].dtype == dtype, name
        assert cast.edge_index.dtype == torch.int64
