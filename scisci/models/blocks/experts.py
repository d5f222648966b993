"""Mixtures of experts: feed-forward networks of which every position sees a few, chosen by a router."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from scisci.models.blocks.sequence import SwiGLU


class Experts(nn.Module):
    """Some experts chosen for each position, beside one that all share behind a sigmoid gate.

    The weights of the chosen ones are the router's probabilities, which do not sum to one. Dai et al., "DeepSeekMoE"
    (2024), with the gate of Qwen and Time-MoE.

    Args:
        channels: width.
        hidden: of the shared expert; that of the others is `hidden / chosen`.
        experts: to choose among.
        chosen: for each position.
    """

    def __init__(self, channels: int, hidden: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen, each = chosen, hidden // chosen
        self.router = nn.Linear(channels, experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * each, channels).uniform_(-1, 1) / math.sqrt(channels))
        self.down = nn.Parameter(torch.empty(experts, channels, each).uniform_(-1, 1) / math.sqrt(each))
        self.shared, self.shared_gate = SwiGLU(channels, hidden), nn.Linear(channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> tuple[Tensor, Float[Tensor, "*rows experts"]]:
        """[..., C] → [..., C], and the probabilities of all experts [..., E]."""
        probabilities = self.router(x).softmax(dim=-1)
        weights, chosen = (part.flatten(0, -2) for part in probabilities.topk(self.chosen, dim=-1))
        together = self.shared_gate(x).sigmoid() * self.shared(x)
        return together + self.sparse(x.flatten(0, -2), weights, chosen).view_as(x), probabilities

    def sparse(
        self,
        x: Float[Tensor, "rows channels"],
        weights: Float[Tensor, "rows chosen"],
        chosen: Int[Tensor, "rows chosen"],
    ) -> Float[Tensor, "rows channels"]:
        """Each row through its chosen experts, weighted and summed: rows are sorted by expert, so each runs once."""
        order = chosen.flatten().argsort(stable=True)
        row = order // self.chosen
        parts = x[row].split(torch.bincount(chosen.flatten(), minlength=len(self.down)).tolist())
        found = []
        for part, gate_up, down in zip(parts, self.gate_up, self.down, strict=True):
            gate, up = functional.linear(part, gate_up).chunk(2, dim=-1)
            found.append(functional.linear(functional.silu(gate) * up, down))
        weighted = torch.cat(found) * weights.flatten()[order, None]
        # In mixed precision, products have less of it than what they are added to.
        return torch.zeros_like(x).index_add(0, row, weighted.to(x.dtype))


def balance(probabilities: Float[Tensor, "layers rows experts"], chosen: int) -> Float[Tensor, ""]:
    """E times the sum over experts of f p: the share of rows that chose each, and its mean probability; of all layers.

    At its least, `chosen`, where all experts are in equal use. Fedus et al., "Switch transformers" (2021), eq. 4.
    """
    experts = probabilities.shape[-1]
    routes = probabilities.flatten(0, -2)
    picks = torch.bincount(routes.topk(chosen, dim=-1).indices.flatten(), minlength=experts)
    return experts * (picks / max(1, len(routes)) * routes.sum(dim=0) / max(1, len(routes))).sum()
