"""Normalisation over channels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale. Zhang & Sennrich (2019), eq. 4.

    Written out, since the fused kernel has no second derivative on every device and forces need one.
    """

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        """[..., C] → [..., C]"""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon) * self.scale


class EquivariantRMSNorm(nn.Module):
    """Divide features of all degrees by one root mean square, in which every degree counts alike; scale per degree.

    Scalars are centred over channels first and get a bias. The layer of Fu et al., "Learning smooth and expressive
    interatomic potentials for physical property prediction" (2025), after Liao et al., "EquiformerV2" (2024).
    """

    balance: Tensor
    is_scalar: Tensor
    degree_of_row: Tensor

    def __init__(self, l_max: int, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scale = nn.Parameter(torch.ones(l_max + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        dims = 2 * torch.arange(l_max + 1) + 1
        degree = torch.repeat_interleave(dims)
        balance = 1.0 / (dims[degree, None].double() * (l_max + 1))
        # Kept in float64: rounded constants would limit the symmetry of a model turned to float64 later.
        self.register_buffer("balance", balance, persistent=False)
        self.register_buffer("is_scalar", (degree == 0)[:, None].double(), persistent=False)
        self.register_buffer("degree_of_row", degree, persistent=False)

    def forward(self, x: Float[Tensor, "rows j channels"]) -> Float[Tensor, "rows j channels"]:
        """[N, (l_max + 1)^2, C] → the same shape"""
        is_scalar = self.is_scalar.to(x.dtype)
        x = x - is_scalar * x[:, :1].mean(dim=2, keepdim=True)
        square = (x.square().mean(dim=2, keepdim=True) * self.balance.to(x.dtype)).sum(dim=1, keepdim=True)
        return x * torch.rsqrt(square + self.epsilon) * self.scale[self.degree_of_row] + is_scalar * self.bias
