"""Baselines for the parameters of a universe: a constant, the number of halos, the two-point function."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scisci.models.tree import virtual_nodes
from scisci.tasks.baselines.linear import Baseline, Batches, Linear
from scisci.tasks.baselines.pairs import clouds, half_width, two_point
from scisci.tasks.metrics import PARAMETERS

STEPS, RATE, DECAY, EVERY = 1000, 1e-3, 1e-2, 10


def labels(batch: Any) -> Tensor:
    """[B, 2] the parameters."""
    return torch.stack([batch[name].double() for name in PARAMETERS], dim=1)


class ParameterRegression(Linear):
    """Least squares on numbers of a cloud or tree, of which the first is 1; a row per sample."""

    intercept = True
    outputs = len(PARAMETERS)

    def labels(self, batch: Any) -> Tensor:
        """[B, 2]"""
        return labels(batch)

    def summaries(self, batch: Any) -> Tensor:
        """[B, features - 1] numbers that describe each sample."""
        raise NotImplementedError

    def features(self, batch: Any) -> Tensor:
        """[1, B, features]"""
        return torch.cat([torch.ones(batch.num_graphs, 1), self.summaries(batch)], dim=1)[None]

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`omega_m` and `sigma_8` [B]."""
        found = self.features(batch)[0].double() @ self.weights
        return dict(zip(PARAMETERS, found.unbind(dim=1), strict=True))


class MeanParameters(ParameterRegression):
    """The mean of the training samples."""

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {"2": {}}

    def __init__(self) -> None:
        super().__init__(1)

    def summaries(self, batch: Any) -> Tensor:
        """[B, 0]"""
        return torch.ones(batch.num_graphs, 0)


def powers_of_count(batch: Any, degree: int) -> Tensor:
    """[B, degree] powers of the natural logarithm of the number of halos, from the first on."""
    halos = torch.bincount(batch.batch[~virtual_nodes(batch)], minlength=batch.num_graphs)
    return torch.log(halos.double())[:, None] ** torch.arange(1, degree + 1)


class HaloCount(ParameterRegression):
    """A polynomial of the logarithm of the number of halos: what is known without looking at any of them."""

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {str(2 * (d + 1)): {"degree": d} for d in (1, 2, 3)}

    def __init__(self, degree: int) -> None:
        super().__init__(degree + 1)
        self.degree = degree

    def summaries(self, batch: Any) -> Tensor:
        """[B, degree]"""
        return powers_of_count(batch, self.degree)


class TwoPoint(ParameterRegression):
    """The two-point correlation function in `bins` of distance, and powers of the logarithm of the number of halos.

    Bins are even in the square root of the distance, up to half the box. `count` is the highest power; with 0 the
    number of halos is left out. A ridge regression.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {str(2 * (b + 3)): {"bins": b, "count": 2} for b in (5, 13, 29)}

    def __init__(self, bins: int, count: int) -> None:
        super().__init__(1 + bins + count)
        self.bins, self.count = bins, count

    def summaries(self, batch: Any) -> Tensor:
        """[B, bins + count]"""
        shares = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64) ** 2
        found = torch.stack([two_point(pos, cell, half_width(cell) * shares) for pos, cell in clouds(batch)])
        return torch.cat([found, powers_of_count(batch, self.count)], dim=1)


class TwoPointNetwork(Baseline):
    """The same numbers of a cloud through a network with two hidden layers.

    AdamW on all training clouds at once; of all weights those with the lowest validation error count.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"bins": 13, "count": 2, "width": width} for name, width in (("600", 16), ("5k", 64), ("70k", 256))
    }
    steps = STEPS

    def __init__(self, bins: int, count: int, width: int) -> None:
        super().__init__()
        self.source = TwoPoint(bins, count)
        inputs, outputs = bins + count, len(PARAMETERS)
        self.network = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
        ).double()
        for name, size in (("inputs", inputs), ("outputs", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.params = sum(weights.numel() for weights in self.network.parameters())
        self.best_step = 0

    def _gather(self, batches: Batches) -> tuple[Tensor, Tensor]:
        parts = [(self.source.summaries(batch), labels(batch)) for batch in batches()]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        return x, y

    def fit(self, train: Batches, val: Batches) -> None:
        """Standardise by the training clouds, then train."""
        x, y = self._gather(train)
        held_x, held_y = self._gather(val)
        self.inputs_mean, self.outputs_mean = x.mean(dim=0), y.mean(dim=0)
        self.inputs_scale, self.outputs_scale = (
            torch.where(v.std(dim=0, correction=0) > 0, v.std(dim=0, correction=0), 1.0) for v in (x, y)
        )
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        lowest, best = float("inf"), self.network.state_dict()
        with torch.enable_grad():
            for step in range(1, STEPS + 1):
                optimizer.zero_grad()
                self.error(x, y).backward()
                optimizer.step()
                schedule.step()
                if step % EVERY == 0 and (found := self.error(held_x, held_y).item()) < lowest:
                    lowest, self.best_step = found, step
                    best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(best)

    def error(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error in units of the labels' variance."""
        return ((self.predict(x) - y) / self.outputs_scale).square().mean()

    @torch.enable_grad()
    def work(self, batch: Any) -> None:
        """A step forward and back; counting pairs is no matrix product."""
        self.error(self.source.summaries(batch), labels(batch)).backward()
        self.zero_grad()

    def predict(self, summaries: Tensor) -> Tensor:
        """[B, 2] parameters from the numbers [B, inputs] of clouds."""
        standard = (summaries - self.inputs_mean) / self.inputs_scale
        return self.outputs_mean + self.outputs_scale * self.network(standard)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`omega_m` and `sigma_8` [B]."""
        return dict(zip(PARAMETERS, self.predict(self.source.summaries(batch)).unbind(dim=1), strict=True))

    def choices(self) -> dict[str, Any]:
        """The step after which the validation error was lowest."""
        return {"best_step": self.best_step}
