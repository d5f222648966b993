"""What every backbone receives and returns."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Inputs(NamedTuple):
    """What nodes carry: the elements a model knows, numbers of invariant scalars and vectors, and whether a place.

    Where nodes have `positions`, a backbone sees edge vectors; the positions themselves only if it `reads_positions`.
    `datasets` is how many data sets of different labels the model is trained on at once.
    """

    elements: tuple[int, ...] = ()
    scalars: int = 0
    vectors: int = 0
    positions: bool = True
    datasets: int = 1


class Graph(NamedTuple):
    """Nodes (atoms, points or halos of a tree) and the directed edges between them, from sender to receiver.

    Edge vectors point from receiver to sender; trees, whose edges go from child to parent, have zeros there. `system`
    is the sample of each node and `ptr` where each sample's nodes begin; a potential, which is local, has neither.
    `positions`, in units of the box, are for backbones that ask for them by `reads_positions = True`. `dataset` is the
    data set that each node is of, from 0, where a model is trained on several at once.
    """

    numbers: Int[Tensor, " nodes"]
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    lengths: Float[Tensor, " edges"]
    node_scalars: Float[Tensor, "nodes scalars"] | None = None
    node_vectors: Float[Tensor, "nodes 3 vectors"] | None = None
    system: Int[Tensor, " nodes"] | None = None
    ptr: Int[Tensor, " systems_plus_one"] | None = None
    positions: Float[Tensor, "nodes 3"] | None = None
    dataset: Int[Tensor, " nodes"] | None = None


class Features(NamedTuple):
    """Per-node features: invariant scalars, and vectors in x, y, z order that turn with the system (or `None`)."""

    scalars: Float[Tensor, "nodes channels"]
    vectors: Float[Tensor, "nodes 3 channels"] | None


def sum_to(values: Float[Tensor, rows * shape], index: Int[Tensor, " rows"], size: int) -> Float[Tensor, size * shape]:
    """Sum rows that share an index."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def mean_over_systems(
    values: Float[Tensor, "nodes channels"], system: Int[Tensor, " nodes"], ptr: Int[Tensor, " systems_plus_one"]
) -> Float[Tensor, "systems channels"]:
    """[N, C] → [B, C]: a mean, not a sum, so that what is learned at one number of nodes means the same at another."""
    return sum_to(values, system, len(ptr) - 1) / ptr.diff().to(values.dtype)[:, None]
