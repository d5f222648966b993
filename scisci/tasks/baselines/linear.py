"""Linear regression from moments: one pass over the data, whatever their size, then every ridge penalty at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

PENALTIES = torch.tensor([1e-10, *(10.0**k for k in range(-7, 3))], dtype=torch.float64)
Batches = Callable[[], Iterable[Any]]


class Baseline(nn.Module):
    """A predictor that `fit` determines from the training samples and the ID validation samples.

    `forward` takes a batch to outputs by name, as a model does, so that the same code measures both.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]]
    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    """group → claim; every run measures it"""

    def fit(self, train: Batches, val: Batches) -> None:
        """Determine all coefficients; what is chosen is chosen on `val`, never on a test split."""
        raise NotImplementedError

    def work(self, batch: Any) -> None:
        """What fitting does with a batch of training samples in one pass, for counting FLOPs before the fit."""
        raise NotImplementedError

    def choices(self) -> dict[str, Any]:
        """What was chosen on validation samples, by name."""
        return {}

    params: int
    """fitted coefficients"""
    steps: int = 1
    """passes over the training samples"""
    fitted: bool = False
    """whether coefficients were read back from a run"""
    uncounted_flops: float = 0.0
    """of sums that torch's counter does not see as the matrix products they are, in all batches so far"""


class Moments:
    """Sums over rows x [rows, f] and labels y [rows, t] from which least squares follow, for c sets of features."""

    def __init__(self) -> None:
        self.rows = 0
        self.gram = self.cross = self.square = torch.zeros((), dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take in features [c, rows, f] and labels [rows, t]."""
        x, y = features.double(), labels.double()
        self.rows += len(y)
        self.gram = self.gram + x.transpose(1, 2) @ x
        self.cross = self.cross + x.transpose(1, 2) @ y
        self.square = self.square + y.square().sum(dim=0)

    def missed(self, weights: Tensor) -> Tensor:
        """Sum of squared errors of weights [..., c, f, t] on these rows: [..., c, t]."""
        quadratic = (weights * (self.gram @ weights)).sum(dim=-2)
        return quadratic - 2 * (weights * self.cross).sum(dim=-2) + self.square


def ridge(moments: Moments, intercept: bool) -> Tensor:
    """Weights [penalties, c, f, t] of ridge regression on standardised features, for every penalty.

    With an `intercept` the first feature is 1: it is free, and the others have their mean taken out. Without one they
    are divided by their rms. A feature that never changes has the weight zero.
    """
    gram, cross = moments.gram / moments.rows, moments.cross / moments.rows
    count = gram.shape[-1]
    mean = gram[:, 0].clone() if intercept else gram.new_zeros(gram.shape[:2])
    if intercept:
        mean[:, 0] = 0
    power = gram.diagonal(dim1=1, dim2=2)
    variance = power - mean.square()
    scale = torch.where(variance > 1e-12 * power, variance.clamp(min=0).rsqrt(), 0.0)
    change = torch.diag_embed(scale)
    change[:, :, 0] -= scale * mean
    penalty = torch.ones(count, dtype=torch.float64)
    penalty[0] -= float(intercept)
    standard = change @ gram @ change.transpose(1, 2)
    solved = torch.linalg.pinv(standard + PENALTIES[:, None, None, None] * torch.diag(penalty), hermitian=True)
    return change.transpose(1, 2) @ (solved @ (change @ cross))


class Linear(Baseline):
    """Least squares with a ridge penalty, and one of several sets of features, chosen on validation samples."""

    intercept: ClassVar[bool] = False
    outputs: ClassVar[int] = 1

    def __init__(self, features: int) -> None:
        super().__init__()
        self.params = features * self.outputs
        self.register_buffer("weights", torch.zeros(features, self.outputs, dtype=torch.float64))
        self.register_buffer("chosen", torch.tensor(0))
        self.penalties: list[float] = []

    def features(self, batch: Any) -> Tensor:
        """[c, rows, features] for each set that may be chosen."""
        raise NotImplementedError

    def labels(self, batch: Any) -> Tensor:
        """[rows, outputs]"""
        raise NotImplementedError

    def fit(self, train: Batches, val: Batches) -> None:
        """Moments of both sets of samples; then the penalty of every output, and the features, by validation error."""
        fitted, held = self.moments(train()), self.moments(val())
        weights = ridge(fitted, self.intercept)
        lowest, penalty = held.missed(weights).min(dim=0)
        chosen = int(lowest.sum(dim=1).argmin())
        self.penalties = PENALTIES[penalty[chosen]].tolist()
        self.weights = weights[penalty[chosen], chosen, :, torch.arange(self.outputs)].T.contiguous()
        self.chosen = torch.tensor(chosen)

    def moments(self, batches: Iterable[Any]) -> Moments:
        """Moments of all batches."""
        moments = Moments()
        for batch in batches:
            moments.add(self.features(batch), self.labels(batch))
        return moments

    def work(self, batch: Any) -> None:
        """Features and their moments."""
        self.moments([batch])

    def choices(self) -> dict[str, Any]:
        """The ridge penalty of every output, in units of the standardised features' mean square."""
        return {"ridge": self.penalties}
