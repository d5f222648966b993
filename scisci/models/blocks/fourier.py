"""Functions on the sphere: from harmonic coefficients to values on a grid and back, exactly and in O(L³).

A harmonic is a Legendre function of the polar angle β times a Fourier function of the azimuth α, so both directions
are two small matrix products: first degree ↔ β for every order m, then m ↔ α. Conventions are those of e3nn: the
polar axis is y, α runs from z to x, and components are ordered by degree l and then m = -l..l (m < 0: sines).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import gammaln, lpmv
from torch import Tensor, nn


def legendre_functions(l_max: int, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """The polar parts of orthonormal real harmonics: [l_max + 1 (m), l_max + 1 (l), points], zero where l < m."""
    m, degree = np.meshgrid(np.arange(l_max + 1), np.arange(l_max + 1), indexing="ij")
    allowed = m <= degree
    log_factorials = gammaln(np.where(allowed, degree - m, 0) + 1) - gammaln(degree + m + 1)
    norm = np.sqrt((2 * degree + 1) / (4 * np.pi) * np.exp(log_factorials) * np.where(m > 0, 2, 1))
    # lpmv carries the Condon-Shortley phase (-1)^m, which e3nn does not
    signed = np.where(allowed, norm * (-1.0) ** m, 0)
    return signed[..., None] * lpmv(m[..., None], degree[..., None], cosines)


def component_variances(l_max_in1: int, l_max_in2: int, l_max_out: int) -> NDArray[np.float64]:
    """Variance of a component of each output degree of a Gaunt product of independent unit-variance factors.

    For degree l₃ it is Σ (2l₁+1)(2l₂+1)/4π (l₁ l₂ l₃; 0 0 0)² over l₁ and l₂, where the squared 3j symbol is half
    the integral of the three Legendre polynomials.
    """
    z, weights = np.polynomial.legendre.leggauss((l_max_in1 + l_max_in2 + l_max_out) // 2 + 1)
    first, second = (np.polynomial.legendre.legval(z, 2 * np.arange(top + 1) + 1) for top in (l_max_in1, l_max_in2))
    outputs = np.polynomial.legendre.legvander(z, l_max_out)
    return (weights * first * second) @ outputs / (8 * np.pi)


class Matrices(NamedTuple):
    """The transforms of functions up to one degree in one dtype. Orders are m = -l_max..l_max."""

    component: Int[Tensor, " order_degree"]  # component of each (order, degree); any one where l < |m|
    place: Int[Tensor, " j"]  # (order, degree) of each component
    synthesis: Float[Tensor, "orders polar degrees"]
    analysis: Float[Tensor, "orders degrees polar"]
    azimuth: Float[Tensor, "azimuths orders"]

    def to_grid(self, x: Float[Tensor, "rows j channels"]) -> Float[Tensor, "points rows channels"]:
        """Σ_lm x_lm Y_lm at the points of the grid, the azimuth slowest."""
        orders, polar, degrees = self.synthesis.shape
        rows, _, channels = x.shape
        by_order = x.transpose(0, 1).index_select(0, self.component).view(orders, degrees, rows * channels)
        values = self.azimuth @ torch.bmm(self.synthesis, by_order).view(orders, polar * rows * channels)
        return values.view(len(self.azimuth) * polar, rows, channels)

    def from_grid(self, values: Float[Tensor, "points rows channels"]) -> Float[Tensor, "rows j channels"]:
        """The integrals ∫ f Y_lm over the sphere from the values of f at the points."""
        orders, degrees, polar = self.analysis.shape
        _, rows, channels = values.shape
        by_order = self.azimuth.T @ values.view(len(self.azimuth), polar * rows * channels)
        components = torch.bmm(self.analysis, by_order.view(orders, polar, rows * channels))
        return components.view(orders * degrees, rows, channels).index_select(0, self.place).transpose(0, 1)


class SphereTransform(nn.Module):
    """Constants that take harmonics up to `l_max` to a grid and back, exact for integrands up to `degree`.

    The grid has degree // 2 + 1 Gauss-Legendre points in cos β and degree + 1 equal steps in α: the fewest of any
    product grid with that exactness. Constants stay in float64, so that rounding does not limit the symmetry of a
    model that is turned to float64 later; `matrices` gives them in another dtype.
    """

    degree: Tensor  # l of each component
    component: Tensor
    place: Tensor
    synthesis: Tensor
    analysis: Tensor
    azimuth: Tensor

    def __init__(self, l_max: int, degree: int) -> None:
        super().__init__()
        cosines, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
        orders, degrees = np.arange(-l_max, l_max + 1), np.arange(l_max + 1)
        angles = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
        polar = legendre_functions(l_max, cosines)[abs(orders)]
        component = degrees**2 + degrees + orders[:, None]
        allowed = degrees >= abs(orders)[:, None]
        constants = {
            "degree": np.repeat(degrees, 2 * degrees + 1),
            "component": np.where(allowed, component, 0).ravel(),
            "place": np.flatnonzero(allowed)[np.argsort(component[allowed])],
            "synthesis": polar.transpose(0, 2, 1),
            "analysis": polar * weights * (2 * np.pi / (degree + 1)),
            "azimuth": np.where(orders < 0, np.sin(-orders * angles[:, None]), np.cos(orders * angles[:, None])),
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)), persistent=False)

    def matrices(self, dtype: torch.dtype) -> Matrices:
        """The constants for features of this dtype."""
        floats = (constant.to(dtype) for constant in (self.synthesis, self.analysis, self.azimuth))
        return Matrices(self.component, self.place, *floats)
