"""Products of an atom's features with themselves, coupled to irreps of O(3) and weighted per element and channel.

The higher body orders of MACE (Batatia et al., 2022, eqs. 10 and 11). Equal factors commute, so many couplings of them
coincide. Here every coupling counts once: an orthonormal basis of the symmetric ones is found in float64 from trees
((A_a A_b)_L A_c)_M, and evaluated through trees of few components, as two matrix products over all atoms and channels.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import NamedTuple

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn

MAX_CORRELATION = 3
ONE = 0  # position of the constant 1, put before the features; products of fewer factors are filled up with it


class Tree(NamedTuple):
    """An order of coupling: `first` and `second` to the irrep `middle`, then with `last` to the output.

    Factors are positions in the list of irreps with the constant in front.
    """

    first: int
    second: int
    last: int
    middle: o3.Irrep


class Basis(NamedTuple):
    """The symmetric couplings to one output irrep, each a combination of trees."""

    trees: list[Tree]
    combinations: Tensor  # [couplings, trees], float64
    orders: list[int]  # number of factors of each coupling, without constants


def with_constant(irreps: o3.Irreps) -> o3.Irreps:
    """The list of irreps that positions in trees refer to."""
    return o3.Irreps("0e") + irreps


def coupling(left: o3.Irrep, right: o3.Irrep, output: o3.Irrep) -> Tensor:
    """[d_output, d_left, d_right] Clebsch-Gordan coefficients with orthonormal rows, float64."""
    return o3.wigner_3j(left.l, right.l, output.l, dtype=torch.float64).permute(2, 0, 1) * math.sqrt(output.dim)


def candidate_trees(irreps: o3.Irreps, factors: tuple[int, ...], output: o3.Irrep) -> list[Tree]:
    """All trees of three factors, those with the smallest middle irrep, which are cheapest, first."""
    trees = []
    for last in sorted(set(factors)):
        first, second = (factors[k] for k in range(MAX_CORRELATION) if k != factors.index(last))
        pair = irreps[first].ir * irreps[second].ir
        trees += [Tree(first, second, last, middle) for middle in pair if output in middle * irreps[last].ir]
    return sorted(trees, key=lambda tree: tree.middle.dim)


def symmetric_tensor(irreps: o3.Irreps, tree: Tree, output: o3.Irrep) -> Tensor:
    """[d_output, d_a, d_b, d_c] coefficients of a tree for sorted factors, symmetric in those that are equal."""
    first, second, last = (irreps[k].ir for k in tree[:3])
    block = torch.einsum("mkc,kab->mabc", coupling(tree.middle, last, output), coupling(first, second, tree.middle))
    order = sorted(range(MAX_CORRELATION), key=tree.__getitem__)
    factors = [tree[k] for k in order]
    block = block.permute(0, *(1 + k for k in order))
    exchanges = [p for p in itertools.permutations(range(MAX_CORRELATION)) if [factors[k] for k in p] == factors]
    return torch.stack([block.permute(0, *(1 + k for k in p)) for p in exchanges]).mean(dim=0)


def _independent(irreps: o3.Irreps, factors: tuple[int, ...], output: o3.Irrep) -> tuple[list[Tree], Tensor]:
    """Trees that span the symmetric couplings of these factors, and the combinations that are orthonormal."""
    kept: list[Tree] = []
    rows: list[Tensor] = []
    directions: list[Tensor] = []
    for tree in candidate_trees(irreps, factors, output):
        row = symmetric_tensor(irreps, tree, output).flatten()
        rest = row - sum((d * (d @ row) for d in directions), torch.zeros_like(row))
        if rest.norm() > 1e-6 * math.sqrt(output.dim):
            kept.append(tree)
            rows.append(row)
            directions.append(rest / rest.norm())
    if not kept:
        return [], torch.zeros(0, 0, dtype=torch.float64)
    # B = L Q with orthonormal Q, hence Q = inverse(L) B. No eigenvectors: the basis is the same on every machine.
    stacked = torch.stack(rows)
    triangle = torch.linalg.cholesky(stacked @ stacked.T)
    equal = math.prod(math.factorial(factors.count(k)) for k in set(factors) - {ONE})
    return kept, torch.linalg.inv(triangle) * math.sqrt(output.dim / equal)


@cache
def symmetric_basis(irreps: o3.Irreps, output: o3.Irrep, correlation: int) -> Basis:
    """All symmetric O(3) couplings of 1 to `correlation` equal factors with components `irreps` to one irrep.

    The symmetric tensors U of nu factors are orthogonal with |U|² = d_output / nu!: independent factors of unit
    variance, all different, then give components of unit variance.

    Raises:
        ValueError: for a correlation other than 1, 2 or 3.
    """
    if not 1 <= correlation <= MAX_CORRELATION:
        raise ValueError(f"correlation is {correlation}, but must be 1, 2 or 3")
    padded = with_constant(irreps)
    trees: list[Tree] = []
    blocks: list[Tensor] = []
    orders: list[int] = []
    for order in range(1, correlation + 1):
        for features in itertools.combinations_with_replacement(range(1, len(padded)), order):
            kept, block = _independent(padded, (ONE,) * (MAX_CORRELATION - order) + features, output)
            trees += kept
            blocks.append(block)
            orders += [order] * len(kept)
    return Basis(trees, torch.block_diag(*blocks), orders)


def coupled(irreps: o3.Irreps, outputs: o3.Irreps, correlation: int) -> o3.Irreps:
    """Those of the `outputs` that occur among symmetric products of up to `correlation` factors."""
    return o3.Irreps([(1, ir) for _, ir in outputs if symmetric_basis(irreps, ir, correlation).orders])


class SymmetricContraction(nn.Module):
    """Weighted symmetric products of up to `correlation` features of an atom, channel by channel.

    B_M = sum over couplings k of w_k U^k_M(A, ..., A), with weights per element and channel. Writing a coupling as
    trees ((A A)_L A)_M gives B_M = sum_j A_j [last (w * pairs (A A))]_Mj with two constant matrices `last`, `pairs`.

    Args:
        irreps_in: of the features A; each at most once.
        irreps_out: of the products B.
        channels: channels of every irrep.
        correlation: highest number of factors, 1 to 3; body order minus one.
        elements: number of kinds of atoms.

    Raises:
        ValueError: for another correlation.
    """

    left: Tensor
    right: Tensor
    pairs: Tensor
    last: Tensor
    rows: Tensor

    def __init__(
        self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, channels: int, correlation: int, elements: int
    ) -> None:
        super().__init__()
        bases = [symmetric_basis(irreps_in, output, correlation) for _, output in irreps_out]
        self.couplings = [len(basis.orders) for basis in bases]
        counts = torch.tensor(self.couplings)
        scales = counts.rsqrt().repeat_interleave(counts)[:, None]
        self.weight = nn.Parameter(torch.randn(elements, sum(self.couplings), channels) * scales)
        self.dims = irreps_out.dim, irreps_in.dim + 1, channels
        for name, buffer in _matrices(with_constant(irreps_in), irreps_out, bases).items():
            # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
            self.register_buffer(name, buffer, persistent=False)

    def forward(
        self, features: Float[Tensor, "atoms j channels"], element: Int[Tensor, " atoms"]
    ) -> Float[Tensor, "atoms m channels"]:
        """[N, J, C], [N] → [N, M, C]"""
        atoms, (outputs, components, channels) = features.shape[0], self.dims
        dtype = features.dtype
        # Components first: the constant matrices then act on all atoms and channels in one product each.
        a = torch.cat([features.new_ones(1, atoms, channels), features.transpose(0, 1)]).flatten(1)
        weights = torch.einsum("rk,ekc->rec", self.rows.to(dtype), self.weight).index_select(1, element)
        pairs = self.pairs.to(dtype) @ (a.index_select(0, self.left) * a.index_select(0, self.right))
        partial = self.last.to(dtype) @ (pairs * weights.flatten(1))
        products = (partial.view(outputs, components, -1) * a).sum(dim=1)
        return products.view(outputs, atoms, channels).transpose(0, 1)


def _matrices(irreps: o3.Irreps, irreps_out: o3.Irreps, bases: list[Basis]) -> dict[str, Tensor]:
    """The constants of the evaluation, whose inner rows are the components of the middle irreps of all trees.

    `left`, `right`: the pairs of components that occur; `pairs` [rows, pairs]; `last` [M x J, rows]; `rows`
    [rows, couplings], the share of each coupling in a row's weight.
    """
    slices, outputs = irreps.slices(), irreps_out.slices()
    pairs, last, rows = [], [], []
    start, couplings = 0, sum(len(basis.orders) for basis in bases)
    for (_, output), place, basis in zip(irreps_out, outputs, bases, strict=True):
        for tree, shares in zip(basis.trees, basis.combinations.T, strict=True):
            matrix = torch.zeros(tree.middle.dim, irreps.dim, irreps.dim, dtype=torch.float64)
            matrix[:, slices[tree.first], slices[tree.second]] = coupling(
                irreps[tree.first].ir, irreps[tree.second].ir, tree.middle
            )
            pairs.append(matrix)
            column = torch.zeros(irreps_out.dim, irreps.dim, tree.middle.dim, dtype=torch.float64)
            column[place, slices[tree.last]] = coupling(tree.middle, irreps[tree.last].ir, output).transpose(1, 2)
            last.append(column.flatten(0, 1))
            share = torch.zeros(couplings, dtype=torch.float64)
            share[start : start + len(shares)] = shares
            rows.append(share.expand(tree.middle.dim, -1))
        start += len(basis.orders)
    stacked = torch.cat(pairs)
    triangle = stacked.triu() + stacked.transpose(1, 2).triu(diagonal=1)
    left, right = (triangle.abs().amax(dim=0) > 1e-12).nonzero().T
    return {
        "left": left,
        "right": right,
        "pairs": triangle[:, left, right],
        "last": torch.cat(last, dim=1),
        "rows": torch.cat(rows),
    }
