"""Sums over the pairs of points of one periodic cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from scisci.contracts.errors import UserError

PAIRS_AT_ONCE = 2**20


def clouds(batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions [n, 3] and cell [3, 3] (lattice vectors in rows) of every cloud; `UserError` if it is not periodic."""
    if "cell" not in batch or not batch.pbc.all():
        raise UserError("a cloud has no periodic box, which this baseline needs; choose other data or another baseline")
    for number, (start, stop) in enumerate(batch.ptr.unfold(0, 2, 1).tolist()):
        yield batch.pos[start:stop], batch.cell[number]


def half_width(cell: Tensor) -> float:
    """Half the least distance between opposite faces: within it, a point meets one image of another at most."""
    return 0.5 / float(torch.linalg.vector_norm(torch.linalg.inv(cell), dim=0).max())


def pairs(pos: Tensor, cell: Tensor, reach: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All ordered pairs closer than `reach`, which is at most `half_width`, a block of receivers at a time.

    Yields the receiver [p], the vector [p, 3] from it to the other point's nearest image, and the distance [p].
    """
    inverse = torch.linalg.inv(cell)
    for receivers in torch.arange(len(pos)).split(max(1, PAIRS_AT_ONCE // len(pos))):
        apart = pos[None] - pos[receivers, None]
        apart = apart - (apart @ inverse).round() @ cell
        distance = torch.linalg.vector_norm(apart, dim=2)
        distance[torch.arange(len(receivers)), receivers] = torch.inf
        near = (distance < reach).nonzero(as_tuple=True)
        yield receivers[near[0]], apart[near], distance[near]


def shell_sums(pos: Tensor, cell: Tensor, shells: int) -> tuple[Tensor, int]:
    """Around every point, unit vectors to the others [n, shells, 3] and their number [n, shells, 1], by distance.

    Returns these sums [n, shells, 4] and over how many pairs. The weights are triangular functions of the distance r
    that sum to one, with peaks at r = reach (m / shells)² and a zero at the reach, half the box's width: finer where
    points are near, and continuous where the nearest image changes.
    """
    reach, count = half_width(cell), 0
    sums = pos.new_zeros(len(pos) * (shells + 1), 4)
    for receivers, apart, distance in pairs(pos, cell, reach):
        place = shells * torch.sqrt(distance / reach)
        low = place.long().clamp(max=shells - 1)
        part = (place - low)[:, None]
        unit = apart / distance.clamp(min=torch.finfo(distance.dtype).tiny)[:, None]
        values = torch.cat([unit, torch.ones_like(part)], dim=1)
        index = receivers * (shells + 1) + low
        sums.index_add_(0, index, values * (1 - part)).index_add_(0, index + 1, values * part)
        count += len(receivers)
    return sums.view(len(pos), shells + 1, 4)[:, :shells], count


def two_point(pos: Tensor, cell: Tensor, edges: Tensor) -> Tensor:
    """The two-point correlation function DD / RR - 1 in shells between the distances `edges` [b + 1]: [b].

    RR, the number of pairs of points without correlations, is exact in a periodic box, where it needs no catalogue:
    n (n - 1) times the shell's share of the volume.
    """
    counts = pos.new_zeros(len(edges) - 1, dtype=torch.float64)
    for _, _, distance in pairs(pos, cell, float(edges[-1])):
        place = torch.bucketize(distance.double(), edges, right=True) - 1
        counts += torch.bincount(place[place >= 0], minlength=len(counts))[: len(counts)]
    shells = 4 / 3 * torch.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    return counts / (len(pos) * (len(pos) - 1) * shells / torch.linalg.det(cell.double()).abs()) - 1
