"""The line graph of a neighbour graph: bonds become nodes, and angles between bonds of an atom become edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scisci.models.blocks.graph import Graph


class LineGraph(NamedTuple):
    """Angles: ordered pairs of different bonds, which are short edges, that end at the same atom.

    `first` and `second` are edges of the graph, `centre` the atom that both end at, `cosine` that of the angle.
    """

    first: Int[Tensor, " angles"]
    second: Int[Tensor, " angles"]
    centre: Int[Tensor, " angles"]
    cosine: Float[Tensor, " angles"]


def line_graph(graph: Graph, cutoff: float) -> LineGraph:
    """The angles between edges shorter than `cutoff` Å, in time and memory proportional to their number.

    The cosine is a scalar product: unlike the angle itself it has derivatives where bonds are parallel.
    """
    bonds = torch.argsort(graph.receivers, stable=True)
    bonds = bonds[graph.lengths.index_select(0, bonds) < cutoff]
    atom = graph.receivers.index_select(0, bonds)
    counts = torch.zeros_like(graph.numbers).index_add(0, atom, torch.ones_like(atom))
    others = counts.index_select(0, atom) - 1
    # The bonds of an atom lie next to each other: each is paired with every position of that stretch but its own.
    first = torch.repeat_interleave(others)
    # Ordered pairs come in twos: tells a tracer that no dimension of this size is one to be broadcast.
    torch._check(first.shape[0] != 1)
    stretch = (counts.cumsum(0) - counts).index_select(0, atom)
    offset = stretch - (others.cumsum(0) - others)
    second = torch.arange(first.shape[0], device=first.device) + offset.index_select(0, first)
    second = second + (second >= first)
    first, second = bonds.index_select(0, first), bonds.index_select(0, second)
    directions = graph.vectors / graph.lengths[:, None]
    cosine = (directions.index_select(0, first) * directions.index_select(0, second)).sum(dim=1)
    return LineGraph(first, second, graph.receivers.index_select(0, first), cosine)
