"""Functions of the edge length, all smooth at the cutoff."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Envelope(nn.Module):
    """A polynomial that falls from 1 to 0 at the cutoff with vanishing first and second derivative.

    Gasteiger et al., "Directional message passing" (2020), eq. 8, with p = 6; zero beyond the cutoff.
    """

    def __init__(self, cutoff: float, p: int = 6) -> None:
        super().__init__()
        self.cutoff, self.p = cutoff, p

    def forward(self, lengths: Float[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """[E] Å → [E] in [0, 1]"""
        p = self.p
        x = (lengths / self.cutoff).clamp(max=1.0)
        return 1 - x**p * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2)))


class BesselBasis(nn.Module):
    """sqrt(2/c) sin(n pi r / c) / r for n = 1..count, times the envelope.

    Gasteiger et al. (2020), eq. 7. Scaled so that a value is of order one.
    """

    frequencies: Tensor

    def __init__(self, cutoff: float, count: int = 8) -> None:
        super().__init__()
        self.cutoff, self.count = cutoff, count
        self.envelope = Envelope(cutoff)
        self.register_buffer("frequencies", math.pi / cutoff * torch.arange(1.0, count + 1), persistent=False)

    def forward(self, lengths: Float[Tensor, " edges"]) -> Float[Tensor, "edges count"]:
        """[E] Å → [E, count]"""
        scale = (2.0 * self.cutoff / 3.0) ** 0.5 * self.envelope(lengths) / lengths
        return torch.sin(self.frequencies * lengths[:, None]) * scale[:, None]


class RawVectorFeatures(nn.Module):
    """The radial basis times (1, x, y, z) of the unit vector: all an unconstrained model sees of an edge."""

    def __init__(self, cutoff: float, count: int = 8) -> None:
        super().__init__()
        self.basis = BesselBasis(cutoff, count)
        self.features = 4 * count

    def forward(
        self, vectors: Float[Tensor, "edges 3"], lengths: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges features"]:
        """[E, 3], [E] Å → [E, 4 count]"""
        direction = vectors / lengths[:, None]
        angular = torch.cat([torch.ones_like(lengths)[:, None], direction], dim=1)
        return (self.basis(lengths)[:, :, None] * angular[:, None, :]).flatten(1)
