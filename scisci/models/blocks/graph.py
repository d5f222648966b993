"""What every backbone receives and returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Graph(NamedTuple):
    """Atoms and the directed edges between them. Edge vectors point from receiver to sender."""

    numbers: Int[Tensor, " atoms"]
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    lengths: Float[Tensor, " edges"]


class Features(NamedTuple):
    """Per-atom features: invariant scalars, and vectors that turn with the system (or `None`)."""

    scalars: Float[Tensor, "atoms channels"]
    vectors: Float[Tensor, "atoms 3 channels"] | None


def sum_to(values: Float[Tensor, rows * shape], index: Int[Tensor, " rows"], size: int) -> Float[Tensor, size * shape]:
    """Sum rows that share an index."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


class ElementIndex(nn.Module):
    """Atomic numbers → positions in a model's list of elements."""

    table: Tensor

    def __init__(self, elements: tuple[int, ...]) -> None:
        super().__init__()
        table = torch.full((119,), -1, dtype=torch.int64)
        table[list(elements)] = torch.arange(len(elements))
        self.register_buffer("table", table, persistent=False)

    def forward(self, numbers: Int[Tensor, " atoms"]) -> Int[Tensor, " atoms"]:
        """[N] atomic numbers → [N] element positions; an unknown element is -1 and fails in the embedding."""
        return self.table[numbers]
