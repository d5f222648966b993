"""Interatomic potentials: a backbone with an energy readout, and forces that are its gradient."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import ElementIndex
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to


class Potential(nn.Module):
    """Energy as a sum over atoms, forces as minus its gradient, for any backbone.

    The energy of an atom is its element's reference plus `energy_scale` times the readout of its scalars. Forces are
    taken with respect to the edge vectors and summed onto atoms, which also makes the net force exactly zero.
    `forces="direct"` predicts them without an energy behind them: faster, but they do not conserve energy.

    Args:
        backbone: a registered architecture.
        energy_references: eV, one per element of the backbone.
        energy_scale: eV; the rms force component of the training data, for outputs of order one.
        forces: "gradient" or "direct".
    """

    energy_references: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        energy_references: tuple[float, ...],
        energy_scale: float,
        forces: Literal["gradient", "direct"] = "gradient",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.cutoff, self.symmetry = backbone.cutoff, backbone.symmetry
        self.elements = cast(Inputs, backbone.inputs).elements
        self.element_index = ElementIndex(self.elements)
        channels = int(backbone.scalar_channels)  # type: ignore[arg-type]
        self.readout = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1, bias=False))
        self.direct: nn.Linear | None = None
        if forces == "direct":
            vectors = int(backbone.vector_channels)  # type: ignore[arg-type]
            # A backbone with vectors mixes them; one without reads components off its scalars.
            self.direct = nn.Linear(vectors, 1, bias=False) if vectors else nn.Linear(channels, 3)
        self.register_buffer("energy_references", torch.tensor(energy_references, dtype=torch.float64))
        self.energy_scale = energy_scale

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → `energy` [B] float64 eV, `interaction` [B] eV (without references), `forces` [N, 3] eV/Å."""
        dtype = self.readout[0].weight.dtype
        gradient = self.direct is None
        with torch.set_grad_enabled(torch.is_grad_enabled() or gradient):
            senders, receivers = batch.edge_index
            pos = batch.pos.detach().to(dtype).requires_grad_(gradient)
            vectors = pos[senders] + batch.edge_shift.to(dtype) - pos[receivers]
            graph = Graph(batch.numbers, senders, receivers, vectors, torch.linalg.vector_norm(vectors, dim=1))
            features: Features = self.backbone(graph)
            atoms = self.readout(features.scalars)[:, 0] * self.energy_scale
            interaction = sum_to(atoms, batch.batch, batch.num_graphs)
            forces = self._gradient_forces(interaction, graph) if gradient else self._direct_forces(features)
        element = self.element_index(batch.numbers)
        references = sum_to(self.energy_references[element], batch.batch, batch.num_graphs)
        if not self.training:
            interaction, forces = interaction.detach(), forces.detach()
        return {"energy": references + interaction.double(), "interaction": interaction, "forces": forces}

    def _gradient_forces(self, energy: Float[Tensor, " systems"], graph: Graph) -> Float[Tensor, "atoms 3"]:
        if not len(graph.vectors):
            return graph.vectors.new_zeros(len(graph.numbers), 3)
        (pull,) = torch.autograd.grad(energy.sum(), graph.vectors, create_graph=self.training)
        atoms = len(graph.numbers)
        return sum_to(pull, graph.receivers, atoms) - sum_to(pull, graph.senders, atoms)

    def _direct_forces(self, features: Features) -> Float[Tensor, "atoms 3"]:
        assert self.direct is not None
        inputs = features.scalars if features.vectors is None else features.vectors
        return self.direct(inputs).squeeze(-1) * self.energy_scale


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Trainable parameters in all, and without embeddings."""
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    embeddings = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    return total, total - sum(embeddings.values())
