"""Mixtures of Student t distributions: what probabilistic models of time series forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtr, stdtrit
from torch import Tensor

# From here on the asymptotic series of the normalisation is exact to 1e-12; the difference of log gammas is not.
MANY_DEGREES = 40.0
# From here on 1 + u² is u² in float64.
FAR = 1e8
TOLERANCE = 1e-9


@dataclass(frozen=True)
class StudentMixture:
    """K components with `logits` of their weights, degrees of freedom `df`, `loc` and `scale`, each [..., K].

    The units are those of `loc` and `scale`; `df` and `scale` are above zero.
    """

    logits: Tensor
    df: Tensor
    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, outputs: dict[str, Tensor]) -> StudentMixture:
        """The mixture among a model's outputs."""
        return cls(*(outputs[name] for name in ("logits", "df", "loc", "scale")))

    @property
    def weights(self) -> Tensor:
        """[..., K]"""
        return self.logits.softmax(dim=-1)

    def affine(self, offset: Tensor, factor: Tensor) -> StudentMixture:
        """The distribution of offset + factor x, for a factor above zero; both broadcast against [..., K]."""
        return StudentMixture(self.logits, self.df, offset + factor * self.loc, factor * self.scale)

    def log_prob(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """log density [...] at values [...], finite however far out they are."""
        far = ((values[..., None] - self.loc) / self.scale).abs() * self.df.rsqrt()
        # Neither branch may overflow, since gradients flow through both.
        tail = torch.where(far < FAR, torch.log1p(far.clamp(max=FAR).square()), 2 * torch.log(far.clamp(min=FAR)))
        density = _log_normaliser(self.df) - torch.log(self.scale) - (self.df + 1) / 2 * tail
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + density, dim=-1)

    def mean(self) -> Float[Tensor, "*rows"]:
        """Mean [...]; NaN where a component has none, at df <= 1."""
        return (self.weights * torch.where(self.df > 1, self.loc, torch.nan)).sum(dim=-1)

    def cdf(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """P(X <= values) [...]; without gradients."""
        found = _cdf(_array(values), *self._arrays())
        return torch.from_numpy(np.asarray(found)).to(self.loc)

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "*rows levels"]:
        """Quantiles [..., levels] at levels between 0 and 1, to 1e-9 in probability; without gradients."""
        probability = np.broadcast_to(np.asarray(levels, dtype=np.float64), (*self.loc.shape[:-1], len(levels)))
        components = [np.repeat(a.reshape(-1, a.shape[-1]), len(levels), axis=0) for a in self._arrays()]
        found = _invert(probability.ravel(), *components)
        return torch.from_numpy(found.reshape(probability.shape)).to(self.loc)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` independent draws [count, ...]; without gradients."""
        with torch.no_grad():
            uniform = torch.rand((count, *self.loc.shape), generator=generator).to(self.loc)
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            chosen = (self.logits - torch.log(-torch.log(uniform))).argmax(dim=-1, keepdim=True)
            df, loc, scale = (
                a.expand(count, *a.shape).gather(-1, chosen).squeeze(-1) for a in (self.df, self.loc, self.scale)
            )
            chi2 = 2 * torch._standard_gamma((df / 2).cpu(), generator).to(df)
            return loc + scale * torch.randn(df.shape, generator=generator).to(df) * (df / chi2).sqrt()

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(_array(a) for a in (self.weights, self.df, self.loc, self.scale))


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _log_normaliser(df: Tensor) -> Tensor:
    """log of Gamma((df + 1) / 2) / (Gamma(df / 2) sqrt(pi df)), to the precision of its type at any df."""
    half = df.clamp(max=MANY_DEGREES) / 2
    few = torch.lgamma(half + 0.5) - torch.lgamma(half) - torch.log(half) / 2
    # Tricomi & Erdelyi (1951): log Gamma(h + 1/2) - log Gamma(h) - log(h) / 2 for large h.
    inverse = 2 / df.clamp(min=MANY_DEGREES)
    square = inverse.square()
    many = inverse * (-1 / 8 + square * (1 / 192 + square * (-1 / 640 + square * 17 / 14336)))
    return torch.where(df < MANY_DEGREES, few, many) - math.log(2 * math.pi) / 2


def _cdf(x: np.ndarray, weights: np.ndarray, df: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (weights * stdtr(df, (x[..., None] - loc) / scale)).sum(axis=-1)


def _density(x: np.ndarray, factor: np.ndarray, df: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """With the weight of every component over its normalisation as `factor`."""
    far = np.square((x[..., None] - loc) / scale) / df
    return (factor * np.exp(-(df + 1) / 2 * np.log1p(far))).sum(axis=-1)


def _invert(p: np.ndarray, weights: np.ndarray, df: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where the distribution functions of mixtures [n, K] reach p [n]: Newton steps, and bisection where these stray.

    A quantile lies between the least and the greatest of the components'.
    """
    own = loc + scale * stdtrit(df, p[:, None])
    margin = 1e-6 * scale.max(axis=1)
    low, high = own.min(axis=1) - margin, own.max(axis=1) + margin
    x = (weights * own).sum(axis=1).clip(low, high)
    factor = weights * np.exp(_log_normaliser(torch.from_numpy(df)).numpy()) / scale
    open_, parts = np.arange(len(p)), (weights, df, loc, scale, factor)
    for step in range(200):
        *few, heights = (a[open_] for a in parts)
        at = x[open_]
        missing = p[open_] - _cdf(at, *few)
        low[open_], high[open_] = np.where(missing > 0, at, low[open_]), np.where(missing < 0, at, high[open_])
        a, b = low[open_], high[open_]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = at + missing / _density(at, heights, *few[1:])
        # Every fifth step halves the bracket, whatever Newton's would do.
        inside = (newton > a) & (newton < b) & (step % 5 < 4)
        next_ = np.where(inside, newton, a + (b - a) / 2)
        closed = (np.abs(missing) < TOLERANCE) | (next_ == at)
        x[open_] = np.where(closed, at, next_)
        open_ = open_[~closed]
        if not len(open_):
            break
    return x
