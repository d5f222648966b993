"""What every backbone receives and returns."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Inputs(NamedTuple):
    """What nodes carry besides a position: the elements a model knows, and numbers of invariant scalars and vectors."""

    elements: tuple[int, ...] = ()
    scalars: int = 0
    vectors: int = 0


class Graph(NamedTuple):
    """Nodes (atoms or points) and the directed edges between them. Edge vectors point from receiver to sender."""

    numbers: Int[Tensor, " nodes"]
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    lengths: Float[Tensor, " edges"]
    node_scalars: Float[Tensor, "nodes scalars"] | None = None
    node_vectors: Float[Tensor, "nodes 3 vectors"] | None = None


class Features(NamedTuple):
    """Per-node features: invariant scalars, and vectors in x, y, z order that turn with the system (or `None`)."""

    scalars: Float[Tensor, "nodes channels"]
    vectors: Float[Tensor, "nodes 3 channels"] | None


def sum_to(values: Float[Tensor, rows * shape], index: Int[Tensor, " rows"], size: int) -> Float[Tensor, size * shape]:
    """Sum rows that share an index."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)
