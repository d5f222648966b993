"""Models of point clouds: a backbone over points with scalars and vectors of their own, and a head per prediction.

The same for particles, halos and galaxies, isolated or in a periodic box. Every head keeps the backbone's symmetry:
vectors are sums of vectors weighted by invariant scalars, scalars are functions of scalars.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.models.blocks.graph import Features, Graph, Inputs, mean_over_systems
from scisci.models.blocks.waves import BoxWaves


class Field(NamedTuple):
    """A field of the batch that points carry into the model, divided by `scale` there."""

    name: str
    kind: Literal["scalar", "vector"]
    scale: float = 1.0


class Target(NamedTuple):
    """What a head predicts: a vector or a scalar per point, or one scalar per system; `offset + scale * network`.

    A vector has no offset, which would single out a direction.
    """

    name: str
    kind: Literal["vector", "scalar", "system"]
    scale: float = 1.0
    offset: float = 0.0


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Two layers, as wide as their input."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.SiLU(), nn.Linear(inputs, outputs))


class VectorHead(nn.Module):
    """A vector per point: the backbone's vectors and the point's own, weighted by functions of its scalars.

    A backbone without vectors has three components read off its scalars, if it `sees_axes` anyway; one that is to
    keep its symmetry has the point's own vectors alone.
    """

    def __init__(self, scalars: int, vectors: int, own: int, sees_axes: bool) -> None:
        super().__init__()
        if not (vectors or own or sees_axes):
            raise UserError(
                "vectors cannot be predicted from scalars alone; choose l_max 1 or higher, or another architecture"
            )
        self.mix = nn.Linear(vectors, scalars, bias=False) if vectors else None
        self.components = network(scalars, 3) if sees_axes and not vectors else None
        self.weights = network(scalars, (scalars if vectors else 0) + own) if vectors or own else None

    def forward(self, features: Features, own: Float[Tensor, "points 3 own"]) -> Float[Tensor, "points 3"]:
        """[N, 3]"""
        vectors = own
        if self.mix is not None:
            vectors = torch.cat([self.mix(features.vectors), own], dim=2)
        predicted = own.new_zeros(own.shape[:2])
        if self.weights is not None:
            predicted = (vectors * self.weights(features.scalars)[:, None]).sum(dim=2)
        return predicted if self.components is None else predicted + self.components(features.scalars)


class Cloud(nn.Module):
    """Predictions for points and for whole systems, on any backbone.

    Args:
        backbone: a registered architecture, built for `inputs_of(fields)`.
        fields: what points carry besides a position.
        targets: what is predicted; the name of each is the key of its output.
        waves: sums over whole boxes that points carry as well, if any.
    """

    def __init__(
        self,
        backbone: nn.Module,
        fields: tuple[Field, ...],
        targets: tuple[Target, ...],
        waves: BoxWaves | None = None,
    ) -> None:
        super().__init__()
        inputs = inputs_of(fields, waves)
        assert backbone.inputs == inputs
        self.backbone, self.fields, self.targets, self.waves = backbone, fields, targets, waves
        self.cutoff, self.symmetry = cast(float, backbone.cutoff), cast(dict[str, str], backbone.symmetry)
        scalars, vectors = int(backbone.scalar_channels), int(backbone.vector_channels)  # type: ignore[arg-type]
        own, sees_axes = inputs.vectors, self.symmetry["rotation"] not in ("exact", "approximate")
        self.heads = nn.ModuleDict()
        for target in targets:
            vector = target.kind == "vector"
            head = VectorHead(scalars, vectors, own, sees_axes) if vector else network(scalars, 1)
            self.heads[target.name] = head

    def graph(self, batch: Any) -> Graph:
        """The batch as backbones see it, in the model's precision; all points are of one kind."""
        dtype = next(self.parameters()).dtype
        senders, receivers = batch.edge_index
        pos = batch.pos.to(dtype)
        vectors = pos[senders] + batch.edge_shift.to(dtype) - pos[receivers]
        carried: dict[str, list[Tensor]] = {"scalar": [], "vector": []}
        for name, kind, scale in self.fields:
            carried[kind].append((batch[name].to(dtype) / scale)[..., None])
        if self.waves is not None:
            _require_box(batch, "sums over waves in the box need a box")
            contrast, displacement = self.waves(pos, batch.cell, batch.ptr)
            carried["scalar"].append(contrast)
            carried["vector"].append(displacement)
        return Graph(
            torch.zeros(len(pos), dtype=torch.int64, device=pos.device),
            senders,
            receivers,
            vectors,
            torch.linalg.vector_norm(vectors, dim=1),
            torch.cat(carried["scalar"], dim=1) if carried["scalar"] else None,
            torch.cat(carried["vector"], dim=2) if carried["vector"] else None,
            batch.batch,
            batch.ptr,
            _in_box(pos, batch) if getattr(self.backbone, "reads_positions", False) else None,
        )

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → each target by name: [N, 3] vectors, [N] scalars, [B] scalars of systems."""
        graph = self.graph(batch)
        features: Features = self.backbone(graph)
        own = graph.node_vectors
        if own is None:
            own = graph.vectors.new_zeros(len(batch.pos), 3, 0)
        outputs = {}
        for name, kind, scale, offset in self.targets:
            head = self.heads[name]
            if kind == "vector":
                outputs[name] = head(features, own) * scale
                continue
            scalars = features.scalars
            if kind == "system":
                scalars = mean_over_systems(scalars, batch.batch, batch.ptr)
            outputs[name] = head(scalars)[:, 0] * scale + offset
        return outputs


def _require_box(batch: Any, reason: str) -> None:
    if "cell" not in batch:
        raise UserError(f"{reason}, and these points are in none; choose other options or another data set")


def _in_box(pos: Float[Tensor, "points 3"], batch: Any) -> Float[Tensor, "points 3"]:
    """Positions in units of the sides of the box."""
    _require_box(batch, "the model reads positions in a periodic box")
    return pos / torch.linalg.vector_norm(batch.cell.to(pos.dtype), dim=2)[batch.batch]


def inputs_of(fields: tuple[Field, ...], waves: BoxWaves | None = None) -> Inputs:
    """What a backbone must be built for to take these fields and sums."""
    kinds, sums = [field.kind for field in fields], 0 if waves is None else waves.radii
    return Inputs(scalars=kinds.count("scalar") + sums, vectors=kinds.count("vector") + sums)
