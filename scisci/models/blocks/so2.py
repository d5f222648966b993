"""Equivariance made cheap: turn features into the frame of an edge, where only rotations about the edge remain.

In that frame the edge points along y, the polar axis of e3nn's real harmonics. Components of order m and -m of all
degrees then turn into each other alone, so a linear map needs no Clebsch-Gordan coefficients: Passaro & Zitnick,
"Reducing SO(3) convolutions to SO(2) for efficient equivariant GNNs" (2023).

A frame leaves one angle free, and no choice of it is continuous on the whole sphere. Two smooth choices are used, one
per hemisphere; whatever commutes with rotations about the edge does not depend on the choice, so its derivatives of
all orders are those of a smooth function, for edges along every axis too.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.irreps import Path, coupling_paths, path_blocks, weigh_paths


def monomials(degree: int) -> list[tuple[int, int, int]]:
    """Exponents of all monomials of three variables with this total degree."""
    return [(degree - i - j, i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


def rotation_polynomials(l_max: int) -> list[Float[Tensor, "monomials rows columns"]]:
    """Wigner matrices D^l of the rotation with unit quaternion (w, x, 0, z), l = 0..l_max: float64 coefficients.

    They belong to the `monomials` of degree 2 l_max in w, x and z. D^1 is the rotation matrix, and D^l follows from
    D^(l-1) and D^1 by the Clebsch-Gordan series. The series runs on values at w = 1 and roots of unity x and z, from
    which a Fourier transform has the coefficients.
    """
    nodes = 2 * l_max + 1
    roots = torch.exp(2j * math.pi * torch.arange(nodes, dtype=torch.float64) / nodes)
    x, z = torch.meshgrid(roots, roots, indexing="ij")
    one = torch.ones_like(x)
    rows = [
        [one + x**2 - z**2, -2 * z, 2 * x * z],
        [2 * z, one - x**2 - z**2, -2 * x],
        [2 * x * z, 2 * x, one - x**2 + z**2],
    ]
    matrix = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    values = [one[..., None, None], matrix]
    for degree in range(2, l_max + 1):
        coupling = o3.wigner_3j(degree - 1, 1, degree, dtype=torch.float64).to(matrix.dtype)
        product = torch.einsum("abi,xyac,xybd,cdj->xyij", coupling, values[-1], matrix, coupling)
        values.append((2 * degree + 1) * product)
    # w^2 + x^2 + z^2 = 1 brings all of them to the same degree.
    norm = (one + x**2 + z**2)[..., None, None]
    spectra = [
        torch.fft.fft2(value * norm ** (l_max - degree), dim=(0, 1), norm="forward").real
        for degree, value in enumerate(values[: l_max + 1])
    ]
    return [torch.stack([spectrum[i, j] for _, i, j in monomials(2 * l_max)]) for spectrum in spectra]


class EdgePolynomials(nn.Module):
    """Entries of Wigner matrices of the rotations that take edges to the y axis, in one matrix product.

    The rotation is the shortest one in the hemisphere y >= 0. Edges of the other one are first turned by 180 degrees
    about x, which only changes the signs of components.
    """

    coefficients: Tensor
    signs: Tensor
    powers: Tensor

    def __init__(self, l_max: int, coefficients: Tensor, signs: Tensor) -> None:
        super().__init__()
        self.degree = 2 * l_max
        # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
        self.register_buffer("coefficients", coefficients, persistent=False)
        self.register_buffer("signs", signs, persistent=False)
        exponents = torch.tensor(monomials(self.degree)) + torch.arange(3) * (self.degree + 1)
        self.register_buffer("powers", exponents.T.contiguous(), persistent=False)

    def evaluate(self, vectors: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges entries"]:
        """[E, 3] of any length but zero → [E, entries]"""
        x, y, z = (vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)).unbind(dim=1)
        south = y < 0
        side = torch.ones_like(y).masked_fill(south, -1.0)
        w = torch.sqrt(0.5 + 0.5 * side * y)
        quaternion = torch.stack([w, -0.5 * side * z / w, 0.5 * x / w], dim=1)
        powers = [torch.ones_like(quaternion)]
        for _ in range(self.degree):
            powers.append(powers[-1] * quaternion)
        table = torch.stack(powers, dim=2).flatten(1)
        values = table[:, self.powers[0]] * table[:, self.powers[1]] * table[:, self.powers[2]]
        signs = self.signs.to(values.dtype)
        return values @ self.coefficients.to(values.dtype) * torch.where(south[:, None], signs, torch.ones_like(signs))


def _half_turn(polynomials: list[Tensor]) -> list[Float[Tensor, "rows columns"]]:
    """Signs of the columns of each D^l if the edge is first turned about x: its quaternion is (0, 1, 0, 0)."""
    top = monomials(2 * (len(polynomials) - 1)).index((0, 2 * (len(polynomials) - 1), 0))
    return [p[top].diagonal().round().expand(p.shape[1:]) for p in polynomials]


class EdgeRotation(EdgePolynomials):
    """The Wigner matrices D^0..D^l_max that take features into the frame of each edge; transposed, back."""

    def __init__(self, l_max: int) -> None:
        polynomials = rotation_polynomials(l_max)
        signs = torch.cat([s.flatten() for s in _half_turn(polynomials)])
        super().__init__(l_max, torch.cat([p.flatten(1) for p in polynomials], dim=1), signs)
        self.dims = [2 * degree + 1 for degree in range(l_max + 1)]

    def forward(self, vectors: Float[Tensor, "edges 3"]) -> list[Float[Tensor, "edges rows columns"]]:
        """[E, 3] of any length but zero → [E, 2l + 1, 2l + 1] for every degree l"""
        entries = self.evaluate(vectors).split([dim * dim for dim in self.dims], dim=1)
        return [block.unflatten(1, (dim, dim)) for block, dim in zip(entries, self.dims, strict=True)]


class EdgeFrame(EdgePolynomials):
    """One matrix per edge that turns features of all degrees 0..l_max into its frame and keeps orders up to m_max.

    Rows are sorted by order: m = 0 of all degrees, then +1 of all degrees, -1 of all, +2, and so on. `SO2Linear` takes
    them in this order; the transposed matrix turns back.
    """

    def __init__(self, l_max: int, m_max: int) -> None:
        polynomials, dim = rotation_polynomials(l_max), (l_max + 1) ** 2
        coefficients = torch.zeros(len(polynomials[0]), dim, dim, dtype=torch.float64)
        signs = torch.ones(dim, dim, dtype=torch.float64)
        for degree, (block, sign) in enumerate(zip(polynomials, _half_turn(polynomials), strict=True)):
            part = slice(degree**2, (degree + 1) ** 2)
            coefficients[:, part, part], signs[part, part] = block, sign
        orders = [m * side for m in range(min(l_max, m_max) + 1) for side in ((1, -1) if m else (1,))]
        rows = [degree * (degree + 1) + m for m in orders for degree in range(abs(m), l_max + 1)]
        super().__init__(l_max, coefficients[:, rows].flatten(1), signs[rows].flatten())
        self.shape = len(rows), dim

    def forward(self, vectors: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges rows j"]:
        """[E, 3] of any length but zero → [E, rows, (l_max + 1)^2]"""
        return self.evaluate(vectors).unflatten(1, self.shape)


def by_order(x: Float[Tensor, "edges rows channels"], l_max: int, m_max: int) -> list[Tensor]:
    """Rows as `EdgeFrame` sorts them → per order m [E, 1 or 2 (m, -m), degrees x C]."""
    signs = [2 if m else 1 for m in range(m_max + 1)]
    blocks = x.split([sign * (l_max + 1 - m) for m, sign in enumerate(signs)], dim=1)
    return [block.unflatten(1, (sign, -1)).flatten(2) for block, sign in zip(blocks, signs, strict=True)]


class SO2Linear(nn.Module):
    """Mix degrees and channels of each order in an edge's frame (Passaro & Zitnick, 2023, section 3).

    Orders m and -m share their weights, which keeps reflections: the components of +m are even and those of -m odd
    under a reflection through a plane that holds the edge. `reflections=False` adds the weights between +m and -m of
    the paper; these keep rotations alone.

    Args:
        l_max: highest degree.
        m_max: highest order, at most `l_max`.
        channels_in: C, of every degree.
        channels_out: C'.
        scalars: additional invariants that come out with order 0.
        reflections: whether reflections are to be kept.
    """

    def __init__(
        self, l_max: int, m_max: int, channels_in: int, channels_out: int, scalars: int = 0, reflections: bool = True
    ) -> None:
        super().__init__()
        self.reflections, self.scalars = reflections, scalars
        degrees = [l_max + 1 - m for m in range(m_max + 1)]
        self.widths = [count * channels_out for count in degrees]
        mixed = [1 if reflections or m == 0 else 2 for m in range(m_max + 1)]
        self.bias = nn.Parameter(torch.zeros(scalars + self.widths[0]))
        self.weights = nn.ParameterList(
            torch.randn(count * channels_in, n * width + (0 if m else scalars)) / math.sqrt(n * count * channels_in)
            for m, (count, n, width) in enumerate(zip(degrees, mixed, self.widths, strict=True))
        )

    def forward(self, orders: list[Float[Tensor, "edges signs inputs"]]) -> list[Float[Tensor, "edges signs outputs"]]:
        """Per order m [E, 1 or 2 (m, -m), degrees x C] → the same with C', and last the scalars [E, 1, scalars]"""
        first = orders[0] @ self.weights[0] + self.bias
        out = [first[..., self.scalars :]]
        for x, weight, width in zip(orders[1:], list(self.weights)[1:], self.widths[1:], strict=True):
            y = x @ weight
            if not self.reflections:
                plus, minus = y[:, 0], y[:, 1]
                real = torch.stack([plus[:, :width], minus[:, :width]], dim=1)
                y = real + torch.stack([-minus[:, width:], plus[:, width:]], dim=1)
            out.append(y)
        return [*out, first[..., : self.scalars]]


class SO2EdgeProduct(nn.Module):
    """The messages of `EdgeTensorProduct`, from matrices of the edge's frame in place of its harmonics.

    In the frame only the harmonics of order 0 are not zero, so path p takes the component of order m to that of order
    m, or -m if l1 + l2 + l3 is odd, times sqrt((2 l2 + 1)(2 l3 + 1)) C_(m, 0, +-m) (Passaro & Zitnick, section 3).
    Features are turned into the frame once; the way back is one small matrix per edge for all paths between two irreps.
    """

    coupling: Tensor

    def __init__(self, features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps) -> None:
        super().__init__()
        self.paths = coupling_paths(features, harmonics, outputs)
        self.blocks = path_blocks(self.paths, outputs)
        self.copies = [paths for paths, _ in self.blocks]
        self.rows = sum(outputs[path.output].dim for path in self.paths)
        self.features = [(part, ir.l) for part, (_, ir) in zip(features.slices(), features, strict=True)]
        # Paths between the same two irreps follow one another and have one parity: all keep m, or all turn it round.
        pairs = {(path.feature, path.output): path for path in self.paths}
        counts = Counter((path.feature, path.output) for path in self.paths)
        self.pairs = [EdgePair.of(path, features, harmonics, outputs, counts[key]) for key, path in pairs.items()]
        couplings = [
            _axis_coupling(features[p.feature].ir.l, harmonics[p.harmonic].ir.l, outputs[p.output].ir.l)
            for p in self.paths
        ]
        # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
        self.register_buffer("coupling", torch.cat(couplings), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "edges j channels"],
        rotations: list[Float[Tensor, "edges rows columns"]],
        weights: Float[Tensor, "edges paths channels"],
    ) -> Float[Tensor, "edges rows channels"]:
        """Messages [E, rows, C]: the components of all paths one after the other, in the order of `paths`.

        `rotations` are the matrices of `EdgeRotation`.
        """
        turned = [
            torch.bmm(rotations[degree], features[:, part]) if degree else features[:, part]
            for part, degree in self.features
        ]
        couplings = self.coupling.to(features.dtype).split([pair.paths * pair.orders for pair in self.pairs])
        messages = []
        for pair, coupling in zip(self.pairs, couplings, strict=True):
            back = rotations[pair.degree][:, pair.back]
            back = (back.flip(1) if pair.odd else back).transpose(1, 2)
            matrices = back[:, None] * coupling.view(pair.paths, 1, pair.orders)
            messages.append(torch.bmm(matrices.flatten(1, 2), turned[pair.feature][:, pair.there]))
        return weigh_paths(torch.cat(messages, dim=1), weights, self.blocks)


class EdgePair(NamedTuple):
    """All paths from one irrep of the features to one of the outputs, and the orders |m| <= min(l1, l3) they share."""

    feature: int
    degree: int
    odd: bool
    paths: int
    orders: int
    there: slice
    back: slice

    @classmethod
    def of(cls, path: Path, features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps, paths: int) -> EdgePair:
        l1, l2, l3 = features[path.feature].ir.l, harmonics[path.harmonic].ir.l, outputs[path.output].ir.l
        reach = min(l1, l3)
        there, back = slice(l1 - reach, l1 + reach + 1), slice(l3 - reach, l3 + reach + 1)
        return cls(path.feature, l3, bool((l1 + l2 + l3) % 2), paths, 2 * reach + 1, there, back)


def _axis_coupling(l1: int, l2: int, l3: int) -> Float[Tensor, " orders"]:
    """sqrt((2 l2 + 1)(2 l3 + 1)) C_(m, 0, m), or C_(m, 0, -m) if l1 + l2 + l3 is odd, for |m| <= min(l1, l3)."""
    reach = min(l1, l3)
    block = o3.wigner_3j(l1, l2, l3, dtype=torch.float64)[l1 - reach : l1 + reach + 1, l2, l3 - reach : l3 + reach + 1]
    diagonal = (block.flip(1) if (l1 + l2 + l3) % 2 else block).diagonal()
    return math.sqrt((2 * l2 + 1) * (2 * l3 + 1)) * diagonal
