"""PointNet against its layer written out point by point, and its symmetry with and without absolute positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scisci.models import registry
from scisci.models.blocks.graph import Graph
from scisci.models.cloud import Cloud, Target, inputs_of
from scisci.models.conformance.systems import boxes
from scisci.models.pointnet import Ball, largest
from scisci.symmetry.measure import symmetry_errors

TARGETS = (Target("velocities", "vector", 100.0), Target("omega_m", "system", 0.1))
QUANTITIES = {target.name: target.name for target in TARGETS}


def model(**overrides: Any) -> Cloud:
    torch.manual_seed(0)
    options = registry.options("pointnet", "10k", overrides)
    return Cloud(registry.build("pointnet", inputs_of(()), 5.0, **options), (), TARGETS).double().eval()


def test_a_ball_is_the_largest_of_what_its_points_say() -> None:
    """Against a loop over balls; point 3 has no neighbour and is alone in its own."""
    torch.manual_seed(0)
    layer, x = Ball(4).double(), torch.randn(4, 4).double()
    senders, receivers = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
    places = torch.randn(4, 3).double()
    graph = Graph(torch.zeros(4), senders, receivers, places, places.norm(dim=1))
    said = layer.sender(layer.norm(x))
    for k in range(4):
        others = [said[senders[e]] + layer.place(places[e]) for e in range(4) if receivers[e] == k]
        most = torch.stack([layer.message(row) for row in (said[k], *others)]).amax(dim=0)
        torch.testing.assert_close(layer(x, graph, places)[k], x[k] + layer.update(most))


def test_largest_by_index() -> None:
    values = torch.tensor([[1.0, -5.0], [3.0, -7.0], [-2.0, -1.0]])
    assert largest(values, torch.tensor([1, 1, 0]), 2).tolist() == [[-2.0, -1.0], [3.0, -5.0]]


@pytest.mark.parametrize("absolute", [True, False])
def test_only_absolute_positions_break_translations_and_coordinates_break_rotations_anyway(absolute: bool) -> None:
    cloud = model(absolute=absolute)
    with torch.no_grad():
        found = symmetry_errors(
            cloud,
            [boxes(np.random.default_rng(0))],
            groups=("permutation", "torus", "cubic"),
            quantities=QUANTITIES,
        )
    assert cloud.symmetry["translation"] == ("none" if absolute else "exact")
    for quantity in QUANTITIES:
        assert found[f"symmetry_permutation_{quantity}"].value < 1e-10
        assert (found[f"symmetry_torus_{quantity}"].value < 1e-10) == (not absolute)
    assert found["symmetry_cubic_velocities"].value > 0.01
    assert found["symmetry_torus_velocities"].value > 0.01 or not absolute
    assert (cloud.graph(boxes(np.random.default_rng(0))).positions is None) == (not absolute)


def test_many_neighbours_say_no_more_than_one_of_each_kind() -> None:
    """A maximum, unlike a sum, does not count: the same neighbour twice is the neighbour once."""
    torch.manual_seed(0)
    layer, x, place = Ball(4).double(), torch.randn(2, 4).double(), torch.randn(1, 3).double()

    def seen(times: int) -> torch.Tensor:
        senders = torch.ones(times, dtype=torch.int64)
        return layer(x, Graph(torch.zeros(2), senders, 1 - senders, place, place[:, 0]), place.repeat(times, 1))[0]

    torch.testing.assert_close(seen(1), seen(5))
    assert float((seen(0) - seen(1)).detach().abs().max()) > 1e-4
