"""Baselines for velocities of halos: none at all, linear theory, and least squares on sums over pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from scisci.models.blocks.waves import radius_over_width, smoothed_fields
from scisci.tasks.baselines.linear import Baseline, Batches, Linear
from scisci.tasks.baselines.pairs import clouds, half_width, shell_sums

KM_PER_S = 100.0
SMOOTHINGS = 10


class NoVelocity(Baseline):
    """Every halo at rest: the only constant that singles out no direction."""

    target = "velocities"
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {"0": {}}
    params = 0

    def fit(self, train: Batches, val: Batches) -> None:
        """Nothing."""

    def work(self, batch: Any) -> None:
        """Nothing."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`velocities` [N, 3] km/s."""
        return {"velocities": torch.zeros_like(batch.pos)}


def log_density(batch: Any) -> Tensor:
    """[B] natural logarithm of the number of points per volume."""
    points = (batch.ptr[1:] - batch.ptr[:-1]).double()
    return torch.log(points / torch.linalg.det(batch.cell.double()).abs())


class VelocityRegression(Linear):
    """Least squares on vectors per point, which turn with the cloud; a row per component of each."""

    target = "velocities"

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("typical_density", torch.tensor(0.0, dtype=torch.float64))

    def fit(self, train: Batches, val: Batches) -> None:
        """Densities first, so that those of the features are relative to what is typical."""
        self.typical_density = torch.cat([log_density(batch) for batch in train()]).mean()
        super().fit(train, val)

    def density(self, batch: Any) -> Tensor:
        """[N] natural logarithm of the cloud's number density, relative to what is typical."""
        return (log_density(batch) - self.typical_density).to(batch.pos.dtype)[batch.batch]

    def labels(self, batch: Any) -> Tensor:
        """[3 N, 1]"""
        return batch.velocities.reshape(-1, 1)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`velocities` [N, 3] km/s."""
        found = self.features(batch)[0].double() @ self.weights
        return {"velocities": found.to(batch.pos.dtype).view(-1, 3)}


class LinearTheory(VelocityRegression):
    """Linear theory: v(k) = i a H beta delta(k) k / k², delta the halos' number contrast smoothed over a radius R.

    One beta for all clouds (size "1"), or beta a polynomial of the logarithm of the number density (size "2" and up).
    It is fitted to training clouds, and R is chosen on validation clouds; test velocities have no part in either. The
    Fourier sums run over the halos themselves, without a mesh, so that nothing depends on where one would lie. R is one
    of up to 10 from 3 / k_max to a quarter of the box, where k_max is the `modes`-th wave number along a side. (Peebles
    1980, section 14; Kaiser 1987.)
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        "1": {"coefficients": 1, "modes": 20},
        "2": {"coefficients": 2, "modes": 20},
        "3": {"coefficients": 3, "modes": 20},
    }

    def __init__(self, coefficients: int, modes: int) -> None:
        super().__init__(coefficients)
        self.coefficients = coefficients
        self.modes = np.unique(np.geomspace(modes, min(2, modes), SMOOTHINGS).round()).astype(int).tolist()
        self.fitted = False

    def fit(self, train: Batches, val: Batches) -> None:
        """All radii, then the one of the lowest validation error."""
        super().fit(train, val)
        self.fitted = True

    def features(self, batch: Any) -> Tensor:
        """[radii, 3 N, coefficients]; of the chosen radius alone once fitted."""
        choices = [self.modes[int(self.chosen)]] if self.fitted else self.modes
        fields = torch.stack([torch.cat([displacements(*cloud, m) for cloud in clouds(batch)]) for m in choices])
        powers = self.density(batch)[:, None] ** torch.arange(self.coefficients)
        return KM_PER_S * (fields[..., None] * powers[:, None]).flatten(1, 2)

    def choices(self) -> dict[str, Any]:
        """beta at the typical number density (at redshift 0, where a H is 100 km/s per Mpc/h) and R."""
        return super().choices() | {
            "beta": float(self.weights[0, 0]),
            "radius_over_side": radius_over_width(self.modes[int(self.chosen)]),
        }


def displacements(pos: Tensor, cell: Tensor, modes: int) -> Tensor:
    """[n, 3] displacement of the number density smoothed over the radius that `modes` waves along a side resolve."""
    radius = radius_over_width(modes) * torch.linalg.det(cell).abs() ** (1 / 3)
    return smoothed_fields(pos, cell, modes, radius[None])[1][..., 0]


class LinearVectors(VelocityRegression):
    """Least squares on sums over the other halos of unit vectors, weighted by functions of their distance.

    The `shells` are triangular functions of the distance up to half the box (`pairs.shell_sums`); every sum enters
    once alone, then times the logarithm of the number of halos near the point (`factors` 2), then times that of the
    cloud's number density (`factors` 3). Sums are in units of the mean number of halos in a
    sphere as wide as the box.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        "4": {"shells": 4, "factors": 1},
        "8": {"shells": 8, "factors": 1},
        "16": {"shells": 16, "factors": 1},
        "24": {"shells": 8, "factors": 3},
        "48": {"shells": 16, "factors": 3},
        "96": {"shells": 32, "factors": 3},
    }

    def __init__(self, shells: int, factors: int) -> None:
        super().__init__(shells * factors)
        self.shells, self.count = shells, factors

    def features(self, batch: Any) -> Tensor:
        """[1, 3 N, shells * factors]"""
        parts = list(self._sums(batch))
        vectors, near = (torch.cat(column) for column in zip(*parts, strict=True))
        factors = torch.stack([torch.ones_like(near), near, self.density(batch)], dim=1)[:, : self.count]
        products = torch.einsum("nmc,nf->ncmf", vectors, factors)
        return products.flatten(2).flatten(0, 1)[None]

    def _sums(self, batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for pos, cell in clouds(batch):
            sums, pairs = shell_sums(pos, cell, self.shells)
            # A pair is multiplied and added into 4 sums of 2 shells.
            self.uncounted_flops += 16 * pairs
            around = len(pos) * 4 / 3 * math.pi * half_width(cell) ** 3 / torch.linalg.det(cell).abs()
            near = 1 + sums[:, : -(-self.shells // 2), 3].sum(dim=1)
            yield sums[..., :3] / around, torch.log(near / near.mean())
