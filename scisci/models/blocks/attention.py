"""Attention over neighbours that stays smooth when one of them crosses the cutoff."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scisci.models.blocks.graph import Graph, sum_to


def envelope_softmax(
    logits: Float[Tensor, "edges heads"],
    own: Float[Tensor, "nodes heads"],
    envelope: Float[Tensor, " edges"],
    graph: Graph,
) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "nodes heads"]]:
    """Attention weights of each node's neighbours, and of the node itself; together they sum to one.

    A neighbour's weight is exp(logit) times its envelope, so it fades in smoothly at the cutoff.
    """
    index = graph.receivers[:, None].expand_as(logits)
    top = own.detach().scatter_reduce(0, index, logits.detach(), "amax")
    weights = torch.exp(logits - top[graph.receivers]) * envelope[:, None]
    own_weights = torch.exp(own - top)
    total = sum_to(weights, graph.receivers, own.shape[0]) + own_weights
    return weights / total[graph.receivers], own_weights / total
