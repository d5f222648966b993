"""The Gaunt tensor product: features are functions on the sphere, and their product is taken point by point.

Luo, Chen and Krishnapriyan, "Enabling efficient equivariant operations in the Fourier basis via Gaunt tensor
products" (2024). Expanding the product of two functions up to degree L in harmonics again couples all (l₁, l₂, l₃)
at once,

    z_k = Σ_ij G_ijk x_i y_j,    G_ijk = ∫ Y_i Y_j Y_k over the sphere (Gaunt coefficients),

in O(L³) instead of the O(L⁶) of one Clebsch-Gordan contraction per path. The paper goes to the 2D Fourier basis of
the angles and convolves there with FFTs, which multiply on a grid of the torus. Here the constants lead from degrees
to grid points directly, where half of the torus is enough and Gauss points need fewer polar angles still.

What is lost: by parity G is zero for odd l₁ + l₂ + l₃, and those antisymmetric paths (1 × 1 → 1 is the cross
product) cannot be had: x × y - y × x vanishes. Features keep the natural parity (-1)^l; no pseudovector ever
appears, and each path has a weight w_l₁ w_l₂ w_l₃ instead of one of its own (Xie et al., "The price of freedom",
2025).
"""

from __future__ import annotations

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.models.blocks.fourier import SphereTransform, component_variances

BLOCK = 2**18  # values of a factor on the grid multiplied at once on a CPU: they stay in its second-level cache


class GauntTensorProduct(nn.Module):
    """Multiply two features of natural parity, degrees 0..l_max_in1 and 0..l_max_in2, channel by channel.

    Without `channels` the coefficients are those of the integral of three orthonormal harmonics of e3nn. With it,
    every factor and the output are scaled by learned weights per degree and channel, which start so that factors
    with components of unit variance give outputs of unit variance.

    Errors: `UserError` for an l_max_out above the sum of the others, which nothing reaches.
    """

    def __init__(self, l_max_in1: int, l_max_in2: int, l_max_out: int, channels: int | None = None) -> None:
        super().__init__()
        if l_max_out > l_max_in1 + l_max_in2:
            raise UserError(
                f"products of degrees {l_max_in1} and {l_max_in2} do not reach degree {l_max_out}; "
                f"ask for outputs up to {l_max_in1 + l_max_in2}"
            )
        degree = l_max_in1 + l_max_in2 + l_max_out
        self.l_max = (l_max_in1, l_max_in2, l_max_out)
        self.first, self.second, self.out = (SphereTransform(top, degree) for top in self.l_max)
        self.weights = None
        if channels is not None:
            scale = torch.from_numpy(component_variances(*self.l_max)).rsqrt().to(torch.get_default_dtype())
            starts = (torch.ones(l_max_in1 + 1), torch.ones(l_max_in2 + 1), scale)
            self.weights = nn.ParameterList(nn.Parameter(start[:, None].repeat(1, channels)) for start in starts)

    def forward(
        self, x: Float[Tensor, "rows j1 channels"], y: Float[Tensor, "rows j2 channels2"]
    ) -> Float[Tensor, "rows j3 channels"]:
        """[N, (l_max_in1 + 1)², C], [N, (l_max_in2 + 1)², C or 1] → [N, (l_max_out + 1)², C]"""
        for number, (factor, top) in enumerate(zip((x, y), self.l_max[:2], strict=True), start=1):
            if factor.shape[1] != (top + 1) ** 2:
                raise ValueError(f"factor {number} has {factor.shape[1]} components; l_max {top} has {(top + 1) ** 2}")
        if self.weights is None:
            return self._product(x, y)
        transforms = (self.first, self.second, self.out)
        first, second, out = (weight[part.degree] for weight, part in zip(self.weights, transforms, strict=True))
        return self._product(x * first, y * second) * out

    def coefficients(self) -> Float[Tensor, "j1 j2 j3"]:
        """G_ijk in float64: the products of all pairs of basis vectors."""
        j1, j2, j3 = ((top + 1) ** 2 for top in self.l_max)
        x = torch.eye(j1, dtype=torch.float64).repeat_interleave(j2, 0)
        y = torch.eye(j2, dtype=torch.float64).repeat(j1, 1)
        return self._product(x[:, :, None], y[:, :, None]).view(j1, j2, j3)

    def _product(self, x: Tensor, y: Tensor) -> Tensor:
        first, second, out = (part.matrices(x.dtype) for part in (self.first, self.second, self.out))

        def block(x: Tensor, y: Tensor) -> Tensor:
            return out.from_grid(first.to_grid(x) * second.to_grid(y))

        if x.device.type != "cpu" or torch.compiler.is_compiling():  # these divide the work themselves
            return block(x, y)
        points = len(out.azimuth) * out.synthesis.shape[1]
        rows = max(1, BLOCK // (points * x.shape[2]))
        return torch.cat([block(*part) for part in zip(x.split(rows), y.split(rows), strict=True)])


class GauntEdgeProduct(nn.Module):
    """Messages: multiply sender features with the harmonics of the edge as functions on the sphere.

    Takes the place of `EdgeTensorProduct` with fewer weights and far fewer rows, since paths are summed: the message
    is w_l₃ Σ w_l₁ G x_l₁ Y_l₂, with `rows` weights per edge and channel, those of the input degrees before those of
    the output degrees (`paths` names them). Harmonics are normalised by component; inputs and weights of unit
    variance give messages of unit variance.

    All channels share the harmonics of an edge, so the coefficients are contracted with these first and one small
    matrix acts on every channel. With 32 channels and L up to 6 that is faster than the grid, which is O(L³) but for
    every channel (docs/tensor-products.md).

    Errors: `UserError` for irreps other than each degree up to some l_max once with parity (-1)^l, and for outputs
    that nothing reaches.
    """

    coefficients: Tensor
    weight_before: Tensor
    weight_after: Tensor

    def __init__(self, features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps) -> None:
        super().__init__()
        l_in, l_edge, l_out = (natural_degree(irreps) for irreps in (features, harmonics, outputs))
        self.paths = [("feature", degree) for degree in range(l_in + 1)]
        self.paths += [("output", degree) for degree in range(l_out + 1)]
        self.rows = len(self.paths)
        self.copies = [1] * len(outputs)  # rows of each output irrep
        self.matrix = (outputs.dim, features.dim)
        product = GauntTensorProduct(l_in, l_edge, l_out)
        scale = torch.from_numpy(component_variances(l_in, l_edge, l_out)).rsqrt()[product.out.degree]
        coefficients = (product.coefficients() * scale).permute(1, 2, 0).flatten(1)
        # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
        self.register_buffer("coefficients", coefficients, persistent=False)
        self.register_buffer("weight_before", product.first.degree, persistent=False)
        self.register_buffer("weight_after", l_in + 1 + product.out.degree, persistent=False)

    def forward(
        self,
        features: Float[Tensor, "edges j channels"],
        harmonics: Float[Tensor, "edges h"],
        weights: Float[Tensor, "edges weights channels"],
    ) -> Float[Tensor, "edges j_out channels"]:
        """[E, J, C], [E, H], [E, rows, C] → [E, J', C], one copy of each output irrep."""
        matrices = (harmonics @ self.coefficients.to(harmonics.dtype)).unflatten(1, self.matrix)
        before = features * weights.index_select(1, self.weight_before)
        return torch.bmm(matrices, before) * weights.index_select(1, self.weight_after)


def natural_degree(irreps: o3.Irreps) -> int:
    """The l_max of irreps that hold each degree up to it once with parity (-1)^l, in order."""
    l_max = max(ir.l for _, ir in irreps)
    if irreps != o3.Irreps.spherical_harmonics(l_max):
        raise UserError(
            f"the Gaunt tensor product couples each degree up to l_max once with parity (-1)^l, not {irreps}; "
            "switch parity off or use the Clebsch-Gordan product"
        )
    return l_max
