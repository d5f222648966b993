"""GIN against sums by hand, and against the Weisfeiler-Leman test of isomorphism on trees."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.cloud import Target
from scisci.models.conformance import Subject
from scisci.models.conformance.systems import tree_batch
from scisci.models.deepsets import DeepSets
from scisci.models.gin import GIN, Layer
from scisci.models.tree import Tree

# A fork, a chain and a bush: node by node, the halo each becomes part of.
FORK, CHAIN, BUSH = [-1, 0, 0], [-1, 0, 1], [-1, 0, 0, 1, 1, 2]
SCALAR = Inputs(scalars=1, positions=False)


def graph(parents: list[int], values: np.ndarray | None = None) -> Graph:
    parent = np.array(parents)
    child = torch.from_numpy(np.flatnonzero(parent >= 0))
    count = len(parent)
    scalars = torch.ones(count, 1).double() if values is None else torch.from_numpy(values).reshape(count, -1).double()
    nothing = torch.zeros(len(child), 3).double()
    edges = child, torch.from_numpy(parent)[child]
    return Graph(torch.zeros(count, dtype=torch.int64), *edges, nothing, nothing[:, 0], scalars)


def colours(parents: list[int], rounds: int) -> list[Any]:
    """Weisfeiler-Leman colours after so many rounds, nested: own colour and the multiset of the children's."""
    found: list[Any] = [()] * len(parents)
    for _ in range(rounds):
        found = [
            (found[k], tuple(sorted((found[c] for c, p in enumerate(parents) if p == k), key=repr)))
            for k in range(len(parents))
        ]
    return found


def gin(layers: int, **options: Any) -> GIN:
    torch.manual_seed(1)
    return GIN(SCALAR, 1.0, channels=24, layers=layers, **options).double().requires_grad_(False)


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    return [-1, *(draw(st.integers(0, k)) for k in range(draw(st.integers(0, 9))))]


def test_a_layer_sums_over_children_and_not_over_the_parent() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [5.0, 50.0], [6.0, 60.0]])
    tree, layer = graph(BUSH, values), Layer(2, both_ways=False).double()
    layer.epsilon.data.fill_(0.5)
    expected = [1.5 * 1 + 2 + 3, 1.5 * 2 + 4 + 5, 1.5 * 3 + 6, 1.5 * 4, 1.5 * 5, 1.5 * 6]
    found = layer.gathered(torch.from_numpy(values), tree)
    np.testing.assert_allclose(found[:, 0].detach(), expected)
    np.testing.assert_allclose(found[:, 1].detach(), 10 * np.array(expected))


def test_both_ways_adds_the_parent_through_weights_of_its_own() -> None:
    values = np.array([[1.0], [2.0], [3.0]])
    tree, layer = graph(CHAIN, values), Layer(1, both_ways=True).double()
    assert layer.backward is not None
    layer.backward.weight.data.fill_(100.0)
    np.testing.assert_allclose(layer.gathered(torch.from_numpy(values), tree)[:, 0].detach(), [1 + 2, 2 + 3 + 100, 203])


@settings(max_examples=40, deadline=None)
@given(first=trees(), second=trees(), layers=st.integers(1, 4))
def test_nodes_have_the_same_features_exactly_where_they_have_the_same_colour(
    first: list[int], second: list[int], layers: int
) -> None:
    """Random weights: whatever the Weisfeiler-Leman test tells apart after k rounds, k layers tell apart."""
    model = gin(layers)
    features = torch.cat([model(graph(tree)).scalars for tree in (first, second)])
    shades = colours(first, layers) + colours(second, layers)
    apart = torch.cdist(features, features) / features.norm(dim=1).max()
    same = np.array([[a == b for b in shades] for a in shades])
    assert float(apart[same].max()) < 1e-7
    assert same.all() or float(apart[~same].min()) > 1e-5


def test_multisets_of_equal_sums_are_told_apart() -> None:
    """Progenitors of 0 and 2 against two of 1: a sum of the features themselves is the same."""
    apart, alike = (gin(1)(graph(FORK, np.array(values))).scalars[0] for values in ([5.0, 0, 2], [5.0, 1, 1]))
    assert float((apart - alike).abs().max()) > 1e-3


@settings(max_examples=25, deadline=None)
@given(tree=trees(), seed=st.integers(0, 99))
def test_isomorphic_trees_look_the_same(tree: list[int], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(tree))
    place = np.argsort(order)
    relabelled = [-1 if tree[k] < 0 else int(place[tree[k]]) for k in order]
    assert Counter(map(repr, colours(tree, 3))) == Counter(map(repr, colours(relabelled, 3)))
    model = gin(3)
    plain, other = model(graph(tree)).scalars, model(graph(relabelled)).scalars
    np.testing.assert_allclose(other, plain[order.copy()], atol=1e-12)


@pytest.mark.parametrize("architecture", [GIN, DeepSets])
def test_fork_and_chain_differ_in_their_edges_alone(architecture: type[Any]) -> None:
    """Three halos of the same features either way: only a model of edges can tell."""
    batch = tree_batch(np.random.default_rng(0), np.array(FORK), np.array(CHAIN))
    batch.node_features[:] = torch.tensor([12.0, 1.0, 2.0, 0.5])
    fork, chain = Subject(architecture, {"channels": 8, "layers": 2}).tree()(batch)["omega_m"].detach()
    assert (abs(float(fork - chain)) > 1e-4) == (architecture is GIN)
    assert architecture is GIN or float(fork - chain) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("both_ways", [False, True])
def test_only_both_ways_shows_halos_what_they_become(both_ways: bool) -> None:
    model = gin(2, both_ways=both_ways)
    values = np.array([[1.0], [2.0], [3.0]])
    plain, changed = (model(graph(CHAIN, values + d * np.eye(3, 1))).scalars for d in (0.0, 1.0))
    assert (float((plain - changed)[1:].abs().max()) > 1e-3) == both_ways
    assert float((plain - changed)[0].abs().max()) > 1e-3


def test_the_label_of_a_virtual_node_is_not_seen_and_its_features_neither() -> None:
    rng = np.random.default_rng(0)
    model: Tree = Subject(GIN, {"channels": 8, "layers": 2}).tree(Target("infilling", "scalar"))
    batch = tree_batch(rng, np.array(BUSH))
    batch.label = torch.tensor([-1, -1, -1, -1, -1, 0])
    plain = model(batch)["infilling"].detach()
    batch.label = torch.tensor([-1, -1, -1, -1, -1, 1])
    batch.node_features[5] = 7.0
    np.testing.assert_array_equal(model(batch)["infilling"].detach(), plain)
    batch.label = torch.full((6,), -1)
    assert float((model(batch)["infilling"] - plain).detach().abs().max()) > 1e-3
