from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scisci.data.batch import graph_batch
from scisci.data.samples import TreeSample
from scisci.data.store import Store
from scisci.data.trees import tree_edges
from scisci.data.writer import StoreWriter


def random_tree(rng: np.random.Generator, nodes: int, infilling: bool) -> TreeSample:
    """A tree in which nodes are in random order; for in-filling, with a virtual node beside some of its mergers."""
    above = np.array([-1, *(int(rng.integers(0, k)) for k in range(1, nodes))])
    depth = np.zeros(nodes)
    for k in range(1, nodes):
        depth[k] = depth[above[k]] + 1
    order = rng.permutation(nodes)  # node k becomes node order[k]
    parent, features = np.full(nodes, -1), rng.uniform(0, 10, (nodes, 4))
    parent[order[1:]] = order[above[1:]]
    features[order, 3] = 1 / (1 + depth)
    main, label = rng.random(nodes) < 0.5, None
    if infilling:
        mergers = [k for k in np.flatnonzero(np.bincount(above[1:], minlength=nodes) > 1) if rng.random() < 0.7]
        parent = np.concatenate([parent, order[mergers].astype(int)])
        features = np.concatenate([features, np.zeros((len(mergers), 4))])
        main = np.concatenate([main, np.zeros(len(mergers), bool)])
        label = np.concatenate([-np.ones(nodes, int), rng.integers(0, 2, len(mergers))])
    return TreeSample(features, parent, main, label, 0.3, 0.8)


def slow_edges(sample: TreeSample) -> list[tuple[int, int]]:
    """Edge by edge, as the definition of the virtual nodes says."""
    parent = sample.parent.tolist()
    virtual = [False] * len(parent) if sample.label is None else (sample.label >= 0).tolist()
    edges = []
    for node, above in enumerate(parent):
        if virtual[node]:
            progenitors = [k for k, p in enumerate(parent) if p == above and not virtual[k]]
            edges += [(k, node) for k in (above, *progenitors)]
        elif above >= 0:
            edges.append((node, above))
    return sorted(edges)


@given(seed=st.integers(0, 10_000), nodes=st.integers(1, 40), infilling=st.booleans())
def test_edges_are_those_of_the_definition(seed: int, nodes: int, infilling: bool) -> None:
    sample = random_tree(np.random.default_rng(seed), nodes, infilling)
    edges = tree_edges(sample.parent, None if sample.label is None else sample.label >= 0)
    assert sorted(map(tuple, edges.T.tolist())) == slow_edges(sample)
    assert (np.diff(edges[1]) >= 0).all()


@pytest.mark.parametrize("infilling", [False, True])
@pytest.mark.parametrize("cutoff", [0.0, 5.0])
def test_batch_of_trees_hands_out_each_with_its_own_edges(tmp_path: Path, infilling: bool, cutoff: float) -> None:
    rng = np.random.default_rng(3)
    samples = [random_tree(rng, nodes, infilling) for nodes in (1, 9, 2, 30)]
    with StoreWriter(tmp_path / "x.h5", "tree") as writer:
        for k, sample in enumerate(samples):
            writer.append(sample, f"LH_{k}")
    batch = graph_batch(Store(tmp_path / "x.h5").take(np.array([3, 0, 1, 2])), cutoff)
    chosen = [samples[k] for k in (3, 0, 1, 2)]
    assert batch.num_nodes == sum(len(sample.parent) for sample in chosen)
    assert batch.edge_ptr.diff().tolist() == [len(slow_edges(sample)) for sample in chosen]
    assert ("label" in batch, "edge_shift" in batch, "pos" in batch) == (infilling, False, False)
    assert batch.omega_m.dtype == torch.float32
    for data, sample in zip(batch.to_data_list(), chosen, strict=True):
        assert sorted(map(tuple, data.edge_index.T.tolist())) == slow_edges(sample)
        np.testing.assert_array_equal(data.node_features, sample.node_features.astype(np.float32))
        np.testing.assert_array_equal(data.main_branch, sample.main_branch)
        if sample.label is not None:
            np.testing.assert_array_equal(data.label, sample.label)
