"""DeepSets against a closed form, and what it does to the symmetries of a periodic box, measured."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.card import measure_symmetry
from scisci.models.cloud import Cloud, Target, inputs_of
from scisci.models.conformance import Subject, checks_for
from scisci.models.conformance.systems import boxes
from scisci.models.deepsets import DeepSets, Layer
from scisci.symmetry.measure import symmetry_errors
from scisci.tasks.models_cli import main

TARGETS = (Target("velocities", "vector", 100.0), Target("omega_m", "system", 0.1, 0.3))
QUANTITIES = {target.name: target.name for target in TARGETS}


def model(name: str = "deepsets") -> Cloud:
    torch.manual_seed(0)
    return Cloud(registry.build(name, inputs_of(()), 5.0, **registry.options(name, "10k")), (), TARGETS).double().eval()


def test_a_layer_is_a_function_of_the_point_and_of_the_mean() -> None:
    """Against the layer written out point by point in numpy."""
    torch.manual_seed(0)
    layer, x = Layer(3).double(), torch.randn(5, 3).double()
    system, ptr = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 3, 5])
    none = torch.zeros(0, 3).double()
    graph = Graph(torch.zeros(5), system[:0], system[:0], none, none[:, 0], system=system, ptr=ptr)
    found = layer(x, graph).detach().numpy()
    own, bias, pooled, out, last = (
        p.detach().numpy()
        for p in (layer.own.weight, layer.own.bias, layer.pooled.weight, layer.out[1].weight, layer.out[1].bias)
    )
    values = x.numpy()
    normed = values / np.sqrt(np.square(values).mean(axis=1, keepdims=True) + 1e-6)
    for k in range(5):
        mean = normed[:3].mean(axis=0) if k < 3 else normed[3:].mean(axis=0)
        inner = own @ normed[k] + bias + pooled @ mean
        np.testing.assert_allclose(found[k], values[k] + out @ (inner / (1 + np.exp(-inner))) + last, rtol=1e-12)


def test_positions_in_a_box_are_shown_for_what_they_are() -> None:
    """Reordering is exact; a shift of the origin or a turn of the axes, which mean nothing in physics, are seen."""
    batch = boxes(np.random.default_rng(0))
    with torch.no_grad():
        found = symmetry_errors(model(), [batch], groups=("permutation", "torus", "cubic"), quantities=QUANTITIES)
    for quantity in QUANTITIES:
        assert found[f"symmetry_permutation_{quantity}"].value < 1e-10
    for group in ("torus", "cubic"):
        assert found[f"symmetry_{group}_velocities"].value > 0.01
    # An offset of 0.3 is most of a parameter, and hides errors behind it.
    assert found["symmetry_torus_omega_m"].value > 1e-3


def test_backbones_of_edges_do_not_see_positions() -> None:
    batch = boxes(np.random.default_rng(0))
    with torch.no_grad():
        found = symmetry_errors(model("egnn"), [batch], groups=("torus", "cubic"), quantities=QUANTITIES)
    assert max(value.value for value in found.values()) < 1e-10
    assert model("egnn").graph(batch).positions is None
    np.testing.assert_allclose(model().graph(batch).positions, batch.pos / 12)


def test_the_same_points_in_larger_units_are_the_same() -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 1, (20, 3))
    outputs = []
    for side in (10.0, 1000.0):
        samples = {"group": np.zeros(1, int), "box": np.full((1, 3), side)}
        batch = graph_batch(
            Ragged(np.array([0, 20]), {"positions": side * places}, samples), side / 5, dtype=np.float64
        )
        outputs.append(model()(batch)["velocities"].detach().numpy())
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-9)


def test_no_box_no_positions() -> None:
    batch = graph_batch(Ragged(np.array([0, 4]), {"positions": np.eye(4, 3)}, {"group": np.zeros(1, int)}), 2.0)
    with pytest.raises(UserError, match="reads positions in a periodic box, and these points are in none"):
        model()(batch)


def test_what_carries_nothing_cannot_be_told_apart() -> None:
    with pytest.raises(UserError, match="these carry nothing"):
        DeepSets(Inputs(positions=False), 1.0)


def test_it_is_only_for_what_it_declares() -> None:
    assert "deepsets" in registry.architectures("cloud")
    assert "deepsets" not in registry.architectures("atoms")
    assert registry.architectures("tree") == ["deepsets", "gin"]
    assert set(checks_for(DeepSets)) == {"claims", "round_trip", "sizes", "clouds", "nodes"}
    with pytest.raises(UserError, match="deepsets is for samples of the domain 'cloud' or 'tree', not 'atoms'; choose"):
        registry.require("deepsets", "atoms")


def test_its_card_is_measured_on_clouds(capsys: pytest.CaptureFixture[str]) -> None:
    errors = measure_symmetry("deepsets")
    assert errors["permutation"][2] < 1e-10
    assert all(errors[group][2] > 1e-3 for group in ("rotation", "reflection", "translation"))
    main(["info", "deepsets"])
    assert "of a parameter of clouds" in capsys.readouterr().out


def test_a_claim_that_does_not_hold_in_a_box_is_seen() -> None:
    class Placeless(DeepSets):
        symmetry: ClassVar[dict[str, str]] = {**DeepSets.symmetry, "translation": "exact"}

    for architecture in (DeepSets, Placeless):
        outcomes = {
            o.what: o for o in checks_for(DeepSets)["clouds"](Subject(architecture, {"channels": 8, "layers": 1}))
        }
        assert outcomes["permutation error"].passed
        assert outcomes["translation error"].passed == (architecture is DeepSets)
        assert outcomes["translation error"].value > 1e-3


def test_a_claim_that_does_not_hold_on_trees_is_seen() -> None:
    """A layer whose mean is over the whole batch, and one that sees the order of nodes."""

    class WholeBatch(DeepSets):
        def forward(self, graph):  # type: ignore[no-untyped-def]
            features = super().forward(graph)
            return features._replace(scalars=features.scalars - features.scalars.mean(0))

    class Ordered(DeepSets):
        def forward(self, graph):  # type: ignore[no-untyped-def]
            features = super().forward(graph)
            return features._replace(scalars=features.scalars.cumsum(0))

    for broken, what in ((WholeBatch, "alone against batched"), (Ordered, "permutation error, infilling")):
        outcomes = {o.what: o for o in checks_for(DeepSets)["nodes"](Subject(broken, {"channels": 8, "layers": 1}))}
        assert not outcomes[what].passed
