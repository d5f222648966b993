"""Baselines for in-filling: whether another merger was left out beside a merger that a tree has."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from scisci.contracts.errors import UserError
from scisci.models.tree import FEATURES, virtual_nodes
from scisci.tasks.baselines.linear import PENALTIES, Baseline, Batches

NEWTON_STEPS = 50


def labels(batch: Any) -> Tensor:
    """[V] the labels of the virtual nodes."""
    return batch.label[virtual_nodes(batch)].double()


def around(batch: Any) -> Tensor:
    """[V, 9] what surrounds each virtual node.

    The features of its merger, their means over the merger's progenitors, and log10 of the merger's mass over the sum
    of theirs.
    """
    virtual, x = virtual_nodes(batch), batch.node_features.double()
    sender, receiver = batch.edge_index[:, virtual[batch.edge_index[1]]]
    place, scale = virtual.cumsum(0)[receiver] - 1, x[sender, 3]
    empty = x.new_zeros(int(virtual.sum()))
    # A merger is later than its progenitors.
    merger = scale == empty.scatter_reduce(0, place, scale, "amax", include_self=False)[place]
    earlier, later = (
        empty.new_zeros(len(empty), FEATURES).index_add(0, place[which], x[sender[which]])
        for which in (~merger, merger)
    )
    count = empty.index_add(0, place[~merger], torch.ones_like(scale[~merger]))
    mass = empty.index_add(0, place[~merger], 10.0 ** x[sender[~merger], 0])
    gain = later[:, 0] - torch.log10(mass.clamp(min=1.0))
    return torch.cat([later, earlier / count.clamp(min=1)[:, None], gain[:, None]], dim=1)


class Infilling(Baseline):
    """Log-odds of label 1 at virtual nodes, from rows of features per node."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`infilling` [N] log-odds; those of halos mean nothing."""
        virtual = virtual_nodes(batch)
        odds = torch.zeros(len(virtual), dtype=torch.float64)
        odds[virtual] = self.odds(batch)
        return {"infilling": odds}

    def odds(self, batch: Any) -> Tensor:
        """[V] log-odds of the virtual nodes."""
        raise NotImplementedError


def _both(y: Tensor) -> Tensor:
    if not 0 < y.mean() < 1:
        raise UserError("the training trees do not have virtual nodes of both labels; give more")
    return y


class LabelShare(Infilling):
    """The share of label 1 among the virtual nodes of the training trees, whose likelier label is the majority's."""

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {"1": {}}
    params = 1

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(0.0, dtype=torch.float64))

    def fit(self, train: Batches, val: Batches) -> None:
        """Count the labels."""
        self.weight = torch.logit(_both(torch.cat([labels(batch) for batch in train()])).mean())

    def work(self, batch: Any) -> None:
        """Counting is no matrix product."""

    def odds(self, batch: Any) -> Tensor:
        """[V] the same for all."""
        return self.weight.expand(int(virtual_nodes(batch).sum()))


class Logistic(Infilling):
    """Logistic regression on a merger, its progenitors and how much mass it gained over theirs.

    Newton's method from the largest ridge penalty to the smallest; that of the lowest validation error counts.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {"10": {}}
    params = 2 * FEATURES + 2
    weights: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("weights", 0.0), ("mean", 0.0), ("scale", 1.0)):
            size = self.params - (name != "weights")
            self.register_buffer(name, torch.full((size,), value, dtype=torch.float64))
        self.penalty, self.steps = 0.0, 0

    def features(self, batch: Any) -> Tensor:
        """[V, 10] standardised, the first of them 1."""
        standard = (around(batch) - self.mean) / self.scale
        return torch.cat([torch.ones(len(standard), 1), standard], dim=1)

    def odds(self, batch: Any) -> Tensor:
        """[V] linear in the features."""
        return self.features(batch) @ self.weights

    def fit(self, train: Batches, val: Batches) -> None:
        """Standardise by the training trees, solve for every penalty, and choose."""
        raw = torch.cat([around(batch) for batch in train()])
        self.mean, spread = raw.mean(dim=0), raw.std(dim=0, correction=0)
        self.scale = torch.where(spread > 0, spread, 1.0)
        (x, y), (held, expected) = (self._gather(batches) for batches in (train, val))
        lowest, weights = float("inf"), self.weights
        for penalty in PENALTIES.flip(0):
            weights = self._solved(x, _both(y), weights, penalty)
            error = float(cross_entropy(held @ weights, expected))
            if error < lowest:
                lowest, self.weights, self.penalty = error, weights, float(penalty)

    def _gather(self, batches: Batches) -> tuple[Tensor, Tensor]:
        parts = [(self.features(batch), labels(batch)) for batch in batches()]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        return x, y

    def _solved(self, x: Tensor, y: Tensor, weights: Tensor, penalty: Tensor) -> Tensor:
        """Weights [10] of the lowest penalised cross-entropy; those of larger penalties are where to begin."""
        ridge = penalty * torch.ones(x.shape[1], dtype=torch.float64)
        ridge[0] = 0

        def loss(w: Tensor) -> Tensor:
            return cross_entropy(x @ w, y) + 0.5 * (ridge * w.square()).sum()

        for _ in range(NEWTON_STEPS):
            slope, curvature = derivatives(x, y, weights)
            self.steps += 1
            slope = slope + ridge * weights
            step = torch.linalg.pinv(curvature + ridge.diag(), hermitian=True) @ slope
            gain = slope @ step
            if gain < 1e-14:
                break
            rate, before = 1.0, loss(weights)
            while loss(weights - rate * step) > before - 0.25 * rate * gain and rate > 1e-6:
                rate /= 2
            weights = weights - rate * step
        return weights

    def work(self, batch: Any) -> None:
        """What a step of Newton's method does with a batch."""
        derivatives(self.features(batch), labels(batch), self.weights)

    def choices(self) -> dict[str, Any]:
        """The ridge penalty, on standardised features."""
        return {"ridge": self.penalty}


def cross_entropy(odds: Tensor, y: Tensor) -> Tensor:
    """Mean of -log of the probability given to labels `y` [V], 0 or 1."""
    return (softplus(odds) - y * odds).mean()


def derivatives(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient [f] and Hessian [f, f] of the cross-entropy by the weights."""
    p = torch.sigmoid(x @ weights)
    return x.T @ (p - y) / len(y), (x * (p * (1 - p))[:, None]).T @ x / len(y)
