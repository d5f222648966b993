"""From what nodes carry to their first features."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.graph import Graph, Inputs

HEAVIEST = 118


class ElementIndex(nn.Module):
    """Atomic numbers → positions in a model's list of elements; without elements every node is of one kind, 0."""

    table: Tensor

    def __init__(self, elements: tuple[int, ...]) -> None:
        super().__init__()
        self.kinds = max(1, len(elements))
        table = torch.full((HEAVIEST + 1,), -1 if elements else 0, dtype=torch.int64)
        table[list(elements)] = torch.arange(len(elements))
        self.register_buffer("table", table, persistent=False)

    def forward(self, numbers: Int[Tensor, " nodes"]) -> Int[Tensor, " nodes"]:
        """[N] atomic numbers → [N] element positions; an unknown element is -1 and fails in the embedding."""
        return self.table[numbers]


class NodeEmbedding(nn.Module):
    """One learned vector per element, plus a linear map of the nodes' scalars and of what the model may see of vectors.

    `vectors="products"` shows the scalar products of a node's vectors, which are invariant; `"components"` shows x, y
    and z as they are.
    """

    def __init__(self, inputs: Inputs, channels: int, vectors: Literal["products", "components"] = "products") -> None:
        super().__init__()
        self.element_index = ElementIndex(inputs.elements)
        self.elements = nn.Embedding(self.element_index.kinds, channels)
        self.vectors = vectors if inputs.vectors else None
        shown = {None: 0, "products": inputs.vectors**2, "components": 3 * inputs.vectors}[self.vectors]
        width = inputs.scalars + shown
        self.continuous = nn.Linear(width, channels, bias=False) if width else None

    def forward(self, graph: Graph) -> Float[Tensor, "nodes channels"]:
        """[N, C]"""
        x = self.elements(self.element_index(graph.numbers))
        if self.continuous is None:
            return x
        shown = [] if graph.node_scalars is None else [graph.node_scalars]
        if self.vectors == "products":
            shown.append(torch.einsum("niv,niw->nvw", graph.node_vectors, graph.node_vectors).flatten(1))
        elif self.vectors == "components":
            assert graph.node_vectors is not None
            shown.append(graph.node_vectors.flatten(1))
        return x + self.continuous(torch.cat(shown, dim=1))


class PositionEmbedding(nn.Module):
    """A linear map of absolute positions in the box, scaled to unit variance where points fill it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Linear(3, channels, bias=False)

    def forward(self, graph: Graph) -> Float[Tensor, "nodes channels"]:
        """[N, C]"""
        assert graph.positions is not None
        return self.weights(math.sqrt(12) * (graph.positions - 0.5))


class VectorEmbedding(nn.Module):
    """Mix the vectors that nodes carry into channels; zero where they carry none. Equivariant, since it is linear."""

    def __init__(self, inputs: Inputs, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = (
            nn.Parameter(torch.randn(inputs.vectors, channels) / math.sqrt(inputs.vectors)) if inputs.vectors else None
        )

    def forward(self, graph: Graph) -> Float[Tensor, "nodes 3 channels"]:
        """[N, 3, C]"""
        if self.weight is None or graph.node_vectors is None:
            return graph.vectors.new_zeros(graph.numbers.shape[0], 3, self.channels)
        return graph.node_vectors @ self.weight


def projections(graph: Graph) -> Float[Tensor, "edges twice_vectors"]:
    """[E, 2V] components of the sender's and the receiver's vectors along the edge: invariant; [E, 0] without any."""
    if graph.node_vectors is None:
        return graph.vectors.new_zeros(graph.vectors.shape[0], 0)
    direction = graph.vectors / graph.lengths[:, None]
    ends = graph.node_vectors[graph.senders], graph.node_vectors[graph.receivers]
    return torch.cat([torch.einsum("ei,eiv->ev", direction, end) for end in ends], dim=1)
