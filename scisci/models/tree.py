"""Models of merger trees: a backbone over halos, and a head per parameter of the universe or one for virtual nodes."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from scisci.models.blocks.graph import Features, Graph, Inputs, mean_over_systems
from scisci.models.cloud import Target

FEATURES = 4
INPUTS = Inputs(scalars=FEATURES + 1, positions=False)


class Tree(nn.Module):
    """Predictions for trees and for the virtual nodes in them, on any backbone for the domain "tree".

    The features of halos enter standardised; a virtual node has none, and a mark instead. A parameter is read off the
    mean over the nodes and the root, a label off the node.

    Args:
        backbone: an architecture built for `INPUTS`.
        offsets: what is subtracted from each of a halo's features.
        scales: what they are divided by then.
        targets: what is read off trees ("system") or nodes ("scalar").
    """

    cutoff: ClassVar[float] = 0.0
    offsets: Tensor
    scales: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        offsets: tuple[float, ...],
        scales: tuple[float, ...],
        targets: tuple[Target, ...],
    ) -> None:
        super().__init__()
        assert backbone.inputs == INPUTS
        self.backbone, self.targets = backbone, targets
        self.symmetry = cast(dict[str, str], backbone.symmetry)
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.float64), persistent=False)
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float64), persistent=False)
        channels = int(backbone.scalar_channels)  # type: ignore[arg-type]
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear((1 + (kind == "system")) * channels, channels), nn.SiLU(), nn.Linear(channels, 1)
                )
                for name, kind, _, _ in targets
            }
        )

    def graph(self, batch: Any) -> Graph:
        """The batch as backbones see it, in the model's precision."""
        dtype = next(self.parameters()).dtype
        standard = ((batch.node_features.double() - self.offsets.double()) / self.scales.double()).to(dtype)
        virtual = virtual_nodes(batch)[:, None]
        senders, receivers = batch.edge_index
        return Graph(
            torch.zeros_like(batch.batch),
            senders,
            receivers,
            standard.new_zeros(len(senders), 3),
            standard.new_zeros(len(senders)),
            torch.cat([standard.masked_fill(virtual, 0.0), virtual.to(dtype)], dim=1),
            system=batch.batch,
            ptr=batch.ptr,
        )

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → each target by name: [B] of trees, [N] of nodes."""
        features: Features = self.backbone(self.graph(batch))
        scalars, outputs = features.scalars, {}
        for name, kind, scale, offset in self.targets:
            read = scalars
            if kind == "system":
                mean = mean_over_systems(scalars, batch.batch, batch.ptr)
                read = torch.cat([mean, scalars[roots(batch)]], dim=1)
            outputs[name] = self.heads[name](read)[:, 0] * scale + offset
        return outputs


def virtual_nodes(batch: Any) -> Tensor:
    """[N] bool: which nodes are no halos but stand beside a merger."""
    return batch.label >= 0 if "label" in batch else torch.zeros_like(batch.batch, dtype=torch.bool)


def roots(batch: Any) -> Tensor:
    """[B] the node of each tree that is no halo's progenitor."""
    virtual, (senders, receivers) = virtual_nodes(batch), batch.edge_index
    inner = virtual.clone()
    inner[senders[~virtual[receivers]]] = True
    return torch.nonzero(~inner)[:, 0]
