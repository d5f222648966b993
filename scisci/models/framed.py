"""Models of any backbone under frame averaging: exactly invariant energies, equivariant forces and vectors."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.data.statistics import References
from scisci.models.blocks.graph import Features, Graph, sum_to
from scisci.models.potential import Evaluation, Geometry, Potential
from scisci.symmetry.frames import FULL, Frames, average_over_frames, second_moments


def claims(backbone: dict[str, str], frames: Frames) -> dict[str, str]:
    """What a model claims per group under frame averaging."""
    exact = ("rotation", "reflection") if frames.group == "orthogonal" else ("rotation",)
    return backbone | dict.fromkeys(exact, "exact")


class FramedPotential(Potential):
    """A potential whose energy is the average over the frames of each system (`scisci.symmetry.frames`).

    All frames go through the backbone as one graph. Gradient forces are exact: frames are functions of the edge vectors
    by which the energy is differentiated, so that energy is conserved wherever frames are determined. Direct forces
    are turned back and averaged. Since a frame belongs to a whole system, the energy of distant parts is not the sum
    of theirs. Puny et al. (2022, arXiv:2110.03336), whose public code leaves the gradient of frames out.

    Args:
        backbone: a registered architecture.
        energy_references: eV, one per element of the backbone; a row per data set if there are several.
        energy_scale: eV; the rms force component of the training data, for outputs of order one.
        forces: "gradient" or "direct".
        frames: which frames.
        datasets: names of the data sets it is trained on at once; none for a single one.
    """

    def __init__(
        self,
        backbone: nn.Module,
        energy_references: References,
        energy_scale: float,
        forces: Literal["gradient", "direct"] = "gradient",
        frames: Frames = FULL,
        datasets: tuple[str, ...] = (),
    ) -> None:
        super().__init__(backbone, energy_references, energy_scale, forces, datasets)
        self.frames = frames
        self.symmetry = claims(cast(dict[str, str], backbone.symmetry), frames)  # type: ignore[assignment]

    def energies(self, geometry: Geometry) -> tuple[Tensor, Tensor, Features]:
        """Energies without references [B] eV, the edge vectors [E, 3] to differentiate them by, and the features."""
        interaction, vectors, _, _, features = self._seen(geometry)
        return interaction, vectors, features

    def evaluate(self, geometry: Geometry) -> Evaluation:
        """Energies, forces and virials; a function of tensors alone."""
        if self.direct is None:
            return super().evaluate(geometry)
        interaction, _, axes, weights, features = self._seen(geometry)
        inputs = features.scalars if features.vectors is None else features.vectors
        within = self.direct(inputs).reshape(*weights.shape, 3, 1) * self.energy_scale
        forces = (weights[:, :, None] * (axes @ within).squeeze(-1)).sum(0)
        return Evaluation(interaction, forces, None)

    def _seen(self, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor, Tensor, Features]:
        """Energies [B], edge vectors [E, 3], each atom's frames [K, N, 3, 3] and weights [K, N], features in each."""
        _, pos, senders, receivers, shift, system, ptr, _ = geometry
        pos, systems = pos.detach().requires_grad_(self.direct is None), ptr.shape[0] - 1
        vectors = pos.index_select(0, senders) + shift - pos.index_select(0, receivers)
        moments = second_moments(vectors, system[receivers], systems, cast(float, self.cutoff))
        axes, weights = self.frames(moments, self.training)
        axes, weights = axes[:, system], weights[:, system]
        within = (vectors[:, None, :] @ axes[:, receivers]).squeeze(-2)
        features: Features = self.backbone(copies(geometry, within))
        atoms = (self.readout(features.scalars)[:, 0] * self.energy_scale).unflatten(0, weights.shape)
        # Weights sum to one; what the frames agree on is kept from their derivatives, where it would leave rounding.
        shared = atoms.mean(0)
        mean = shared + (weights * (atoms - shared)).sum(0)
        return sum_to(mean, system, systems), vectors, axes, weights, features


def copies(geometry: Geometry, vectors: Float[Tensor, "frames edges 3"]) -> Graph:
    """One graph with a copy of the geometry per frame, and in each its edge vectors."""
    frames, atoms = vectors.shape[0], geometry.numbers.shape[0]
    offsets = atoms * torch.arange(frames, device=vectors.device)[:, None]
    lengths = torch.linalg.vector_norm(vectors[0], dim=1).repeat(frames)
    return Graph(
        geometry.numbers.repeat(frames),
        (geometry.senders + offsets).flatten(),
        (geometry.receivers + offsets).flatten(),
        vectors.flatten(0, 1),
        lengths,
        dataset=None if geometry.dataset is None else geometry.dataset.repeat(frames),
    )


class Framed(nn.Module):
    """Any model of batches averaged over the frames of each system: point clouds, and outside models.

    The model's `forward` gives a dictionary of outputs per system or per point; those named in
    `scisci.symmetry.actions` as vectors and tensors are turned back. Not for potentials with gradient forces.

    Args:
        model: what is averaged, with attributes `cutoff` and `symmetry`.
        frames: which frames.
        vectors: fields of the points that determine frames together with their positions, such as velocities.
    """

    def __init__(self, model: nn.Module, frames: Frames = FULL, vectors: tuple[str, ...] = ()) -> None:
        super().__init__()
        assert not (isinstance(model, Potential) and model.direct is None), "FramedPotential has the frames' gradient"
        self.model, self.frames, self.vectors, self.cutoff = model, frames, vectors, cast(float, model.cutoff)
        self.symmetry = claims(cast(dict[str, str], model.symmetry), frames)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → the model's outputs, averaged."""
        return average_over_frames(self.model, batch, self.frames, self.cutoff, self.vectors, self.training)
