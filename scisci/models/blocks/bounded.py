"""A radial basis that stays of order one for the closest pairs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scisci.models.blocks.radial import BesselBasis


class BoundedBesselBasis(BesselBasis):
    """Bessel functions b divided by sqrt(1 + mean of b²): their root mean square never exceeds 1.

    They peak at distance zero, the n-th at n times the height of the first. Where points have no least distance, as in
    clouds, networks that multiply messages would be ruled by the few closest pairs. Elsewhere little changes, and at
    the cutoff the division tends to one, so value, slope and curvature still vanish there.
    """

    def forward(self, lengths: Float[Tensor, " edges"]) -> Float[Tensor, "edges count"]:
        """[E] Å → [E, count]"""
        basis = super().forward(lengths)
        return basis * torch.rsqrt(1 + basis.square().mean(dim=1, keepdim=True))
