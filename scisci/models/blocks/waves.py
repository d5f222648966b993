"""Sums over all points of a periodic box by plane waves: what a point knows of the box beyond its neighbours.

Kosmala et al., "Ewald-based long-range message passing for molecular graphs" (2023), send messages this way; here the
sources are all 1 and the filters fixed, so the sums are input features, taken once. They move with the points, turn
with the box and stay the same under translations of its content, since no mesh says where the origin is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Waves shorter than a third of the smoothing radius, over 2 pi, are left out: the window is below 0.011 there.
SHORTEST = 3.0


def radius_over_width(modes: float) -> float:
    """The smoothing radius that so many waves along a side resolve, over the side."""
    return SHORTEST / (2 * math.pi * modes)


def smoothed_fields(
    pos: Float[Tensor, "n 3"], cell: Float[Tensor, "3 3"], modes: int, radii: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n 3 r"]]:
    """Contrast and displacement of the number density at the points, smoothed over Gaussians of `radii`.

    delta(k) is the mean of exp(-i k x) over the points, k has at most `modes` waves along each side and is not 0, and
    W = exp(-k² R² / 2): the contrast is the sum over k of W delta(k) exp(i k x), the displacement (in units of
    length), whose divergence is minus the contrast, that of i k / k² W delta(k) exp(i k x).
    """
    inverse = torch.linalg.inv(cell)
    full, half = torch.arange(-modes, modes + 1, device=pos.device), torch.arange(modes + 1, device=pos.device)
    angles = 2 * math.pi * (pos @ inverse)
    x, y, z = (
        torch.polar(torch.ones_like(a), a) for a in (angles[:, k, None] * n for k, n in enumerate((full, full, half)))
    )
    rest = (y[:, :, None] * z[:, None, :]).flatten(1)
    density = (x.conj().T @ rest.conj()).flatten() / len(pos)
    k = 2 * math.pi * torch.cartesian_prod(full, full, half).to(pos.dtype) @ inverse.T
    square = k.square().sum(dim=1)
    # Waves with opposite k are each other's conjugates: one of every two is left out, and the other counts twice.
    weight = torch.where(torch.arange(len(k), device=pos.device) % len(half) > 0, 2.0, 1.0).to(pos.dtype)
    weight = torch.where(square > 0, weight, 0.0)
    window = weight[:, None] * torch.exp(-0.5 * square[:, None] * radii.to(pos).square())
    kinds = torch.cat([torch.ones_like(square)[:, None] + 0j, 1j * k / square.clamp(min=1e-30)[:, None]], dim=1)
    amplitude = (density[:, None] * kinds)[:, :, None] * window[:, None]
    inner = rest @ amplitude.view(len(full), len(rest[0]), -1).transpose(0, 1).flatten(1)
    fields = (x[:, :, None] * inner.view(len(pos), len(full), -1)).sum(dim=1).real.view(len(pos), 4, len(radii))
    return fields[:, 0], fields[:, 1:]


class BoxWaves(torch.nn.Module):
    """Contrast and displacement at the points of every box of a batch, smoothed over several radii.

    Args:
        modes: waves along a side of the box; 3 / (2 pi modes) of the side is the smallest radius.
        radii: how many, up to the one that two waves resolve.
    """

    def __init__(self, modes: int, radii: int = 4) -> None:
        super().__init__()
        self.modes, self.radii = modes, radii

    def forward(
        self, pos: Float[Tensor, "points 3"], cell: Float[Tensor, "boxes 3 3"], ptr: Tensor
    ) -> tuple[Float[Tensor, "points r"], Float[Tensor, "points 3 r"]]:
        """Scalars [N, R]; vectors [N, 3, R] in units of the shortest wave over 2 pi."""
        parts = []
        for box, points in zip(cell.to(pos.dtype), pos.split(ptr.diff().tolist()), strict=True):
            side = torch.linalg.det(box).abs() ** (1 / 3)
            resolved = torch.logspace(math.log10(self.modes), math.log10(min(2, self.modes)), self.radii)
            radii = side * radius_over_width(1) / resolved.to(pos)
            contrast, displacement = smoothed_fields(points, box, self.modes, radii)
            parts.append((contrast, displacement * (2 * math.pi * self.modes / side)))
        contrasts, displacements = zip(*parts, strict=True)
        return torch.cat(contrasts), torch.cat(displacements)
