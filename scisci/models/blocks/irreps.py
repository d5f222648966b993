"""Features that transform under O(3): one dense tensor [rows, J, C] holds C channels of every irrep.

J runs over the components of the irreps one after the other (for "0e+1o": 1 + 3). All irreps have the same number
of channels, so mixing channels and taking tensor products are a few large matrix products instead of many small ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn


def hidden_irreps(l_max: int, parity: bool) -> o3.Irreps:
    """All irreps up to `l_max`: both parities, or only the natural ones, (-1)^l, of the spherical harmonics."""
    parities = (1, -1) if parity else (None,)
    return o3.Irreps([(1, (degree, p or (-1) ** degree)) for degree in range(l_max + 1) for p in parities])


class Path(NamedTuple):
    """One way of coupling: feature irrep and harmonic of the edge to an output irrep (positions in their lists)."""

    feature: int
    harmonic: int
    output: int


def coupling_paths(features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps) -> list[Path]:
    """All paths that O(3) allows, ordered by output irrep."""
    return [
        Path(f, h, o)
        for o, (_, out) in enumerate(outputs)
        for f, (_, feature) in enumerate(features)
        for h, (_, harmonic) in enumerate(harmonics)
        if out in feature * harmonic
    ]


def path_blocks(paths: list[Path], outputs: o3.Irreps) -> list[tuple[int, int]]:
    """How many paths lead to each output irrep, and its dimension."""
    return [(sum(path.output == o for path in paths), ir.dim) for o, (_, ir) in enumerate(outputs)]


def weigh_paths(
    messages: Float[Tensor, "edges rows channels"],
    weights: Float[Tensor, "edges paths channels"],
    blocks: list[tuple[int, int]],
) -> Float[Tensor, "edges rows channels"]:
    """Multiply all components of a path's message by the path's weight; `blocks` as of `path_blocks`."""
    parts = zip(
        messages.split([paths * dim for paths, dim in blocks], dim=1),
        weights.split([paths for paths, _ in blocks], dim=1),
        blocks,
        strict=True,
    )
    return torch.cat([(m.unflatten(1, block) * w[:, :, None]).flatten(1, 2) for m, w, block in parts], dim=1)


class EdgeTensorProduct(nn.Module):
    """Couple sender features with the harmonics of the edge, channel by channel, weighted per edge and path.

    The message of path p is w_p sum_ij C^p_ijk x_i Y_j with Clebsch-Gordan coefficients C of e3nn
    (Thomas et al., "Tensor field networks", 2018, eq. 8), normalised so that unit-variance inputs give unit variance.
    The coefficients are contracted with Y first: each edge then has one small matrix that acts on all channels.
    """

    coefficients: Tensor

    def __init__(self, features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps) -> None:
        super().__init__()
        self.paths = coupling_paths(features, harmonics, outputs)
        self.blocks = path_blocks(self.paths, outputs)
        self.copies = [paths for paths, _ in self.blocks]
        self.rows = sum(outputs[path.output].dim for path in self.paths)
        self.features = features.dim
        coefficients = torch.zeros(harmonics.dim, self.rows, features.dim, dtype=torch.float64)
        start = 0
        for path in self.paths:
            feature, harmonic, output = features[path.feature], harmonics[path.harmonic], outputs[path.output]
            coupling = o3.wigner_3j(feature.ir.l, harmonic.ir.l, output.ir.l, dtype=torch.float64)
            rows = slice(start, start + output.dim)
            block = coupling.permute(1, 2, 0) * math.sqrt(output.dim)
            coefficients[harmonics.slices()[path.harmonic], rows, features.slices()[path.feature]] = block
            start += output.dim
        # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
        self.register_buffer("coefficients", coefficients.flatten(1), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "edges j channels"],
        harmonics: Float[Tensor, "edges h"],
        weights: Float[Tensor, "edges paths channels"],
    ) -> Float[Tensor, "edges rows channels"]:
        """Messages [E, rows, C]: the components of all paths one after the other, in the order of `paths`."""
        matrices = (harmonics @ self.coefficients.to(harmonics.dtype)).view(-1, self.rows, self.features)
        return weigh_paths(torch.bmm(matrices, features), weights, self.blocks)


class PathWeights(nn.Module):
    """A network of the radial basis: one weight per edge, path and channel."""

    def __init__(self, paths: int, channels: int, basis: int, hidden: int) -> None:
        super().__init__()
        self.paths, self.channels = paths, channels
        self.hidden = nn.Linear(basis, hidden, bias=False)
        self.out = nn.Parameter(torch.randn(paths * channels, hidden) / math.sqrt(hidden))

    def forward(self, basis: Float[Tensor, "edges basis"]) -> Float[Tensor, "edges paths channels"]:
        """[E, basis] → [E, P, C]"""
        weights = nn.functional.silu(self.hidden(basis)) @ self.out.T
        return weights.unflatten(1, (self.paths, self.channels))


class IrrepsLinear(nn.Module):
    """Mix channels within each irrep. `blocks` copies of each irrep may come in (the paths of a tensor product)."""

    def __init__(self, irreps: o3.Irreps, copies: list[int], channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.dims, self.copies = [ir.dim for ir in irreps], copies
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(count * channels_in, channels_out) / math.sqrt(max(1, count * channels_in)))
            for count in copies
        )

    def forward(self, x: Float[Tensor, "rows j channels_in"]) -> Float[Tensor, "rows j_out channels_out"]:
        """[N, sum of copies x dims, C_in] → [N, sum of dims, C_out]"""
        parts, start = [], 0
        for dim, count, weight in zip(self.dims, self.copies, self.weights, strict=True):
            block = x[:, start : start + dim * count].unflatten(1, (count, dim))
            parts.append(block.transpose(1, 2).flatten(2) @ weight)
            start += dim * count
        return torch.cat(parts, dim=1)


class SelfConnection(nn.Module):
    """Mix the channels of an atom's own irreps into those outputs that have the same irrep; zero elsewhere."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, channels: int) -> None:
        super().__init__()
        inputs = {ir: part for (_, ir), part in zip(irreps_in, irreps_in.slices(), strict=True)}
        self.sources = [inputs.get(ir) for _, ir in irreps_out]
        self.dims = [ir.dim for _, ir in irreps_out]
        self.channels = channels
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels)) for s in self.sources if s is not None
        )

    def forward(self, x: Float[Tensor, "rows j channels"]) -> Float[Tensor, "rows j_out channels"]:
        """[N, J, C] → [N, J', C]"""
        weights = iter(self.weights)
        return torch.cat(
            [
                x.new_zeros(x.shape[0], dim, self.channels) if source is None else x[:, source] @ next(weights)
                for source, dim in zip(self.sources, self.dims, strict=True)
            ],
            dim=1,
        )


class ScaledSelfConnection(SelfConnection):
    """Channel mixing followed by a scale per element and channel: few parameters, however many elements."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, channels: int, elements: int) -> None:
        super().__init__(irreps_in, irreps_out, channels)
        self.scale = nn.Embedding.from_pretrained(torch.ones(elements, channels), freeze=False)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "rows j channels"],
        element: Int[Tensor, " rows"],
        attributes: Float[Tensor, "elements channels"] | None = None,
    ) -> Float[Tensor, "rows j_out channels"]:
        """[N, J, C], [N] → [N, J', C]; the attributes are not used."""
        return super().forward(x) * self.scale(element)[:, None]


class BilinearSelfConnection(nn.Module):
    """A matrix per element and irrep, bilinear in features and element embedding.

    The fully connected tensor product with the element of Batzner et al. (2022): many parameters, of which an atom
    uses few. Matrices are formed once per element and gathered by the atoms.
    """

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, channels: int, elements: int) -> None:
        super().__init__()
        inputs = {ir: part for (_, ir), part in zip(irreps_in, irreps_in.slices(), strict=True)}
        self.sources = [inputs.get(ir) for _, ir in irreps_out]
        self.dims = [ir.dim for _, ir in irreps_out]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(channels, channels, channels) / channels)
            for source in self.sources
            if source is not None
        )

    def forward(
        self,
        x: Float[Tensor, "rows j channels"],
        element: Int[Tensor, " rows"],
        attributes: Float[Tensor, "elements channels"],
    ) -> Float[Tensor, "rows j_out channels"]:
        """[N, J, C], [N], [Z, C] → [N, J', C]"""
        weights, parts = iter(self.weights), []
        for source, dim in zip(self.sources, self.dims, strict=True):
            if source is None:
                parts.append(x.new_zeros(x.shape[0], dim, x.shape[2]))
            else:
                of_element = torch.einsum("za,aij->zij", attributes, next(weights))
                parts.append(torch.bmm(x[:, source], of_element[element]))
        return torch.cat(parts, dim=1)


class Gate(nn.Module):
    """SiLU on even scalars, tanh on odd ones; other irreps are scaled by sigmoids of the even scalars.

    The nonlinearity of Weiler et al., "3D steerable CNNs" (2018), section 4.
    """

    gate_of_row: Tensor

    def __init__(self, irreps: o3.Irreps, channels: int) -> None:
        super().__init__()
        self.odd = [i for i, (_, ir) in enumerate(irreps) if ir.l == 0 and ir.p == -1]
        self.gated = [i for i, (_, ir) in enumerate(irreps) if ir.l > 0]
        self.slices = irreps.slices()
        self.channels = channels
        repeats = torch.tensor([irreps[i].dim for i in self.gated], dtype=torch.int64)
        self.register_buffer("gate_of_row", torch.repeat_interleave(repeats), persistent=False)
        self.gates = nn.Linear(channels, channels * len(self.gated)) if self.gated else None

    def forward(self, x: Float[Tensor, "rows j channels"]) -> Float[Tensor, "rows j channels"]:
        """[N, J, C] → [N, J, C]"""
        scalars = x[:, :1]
        parts = [1.7 * torch.nn.functional.silu(scalars)]
        parts += [torch.tanh(x[:, self.slices[i]]) for i in self.odd]
        if self.gates is not None:
            gates = torch.sigmoid(self.gates(scalars[:, 0])).unflatten(1, (len(self.gated), self.channels))
            parts.append(1.7 * x[:, self.slices[self.gated[0]].start :] * gates[:, self.gate_of_row])
        return torch.cat(parts, dim=1)
