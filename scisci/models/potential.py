"""Interatomic potentials: a backbone with an energy readout, and forces that are its gradient."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.data.batch import Elements
from scisci.data.statistics import References
from scisci.models.blocks.embedding import ElementIndex
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to


class Geometry(NamedTuple):
    """The tensors of a graph batch that a potential is a function of; see `scisci.data.batch` for shapes."""

    numbers: Int[Tensor, " atoms"]
    pos: Float[Tensor, "atoms 3"]
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    edge_shift: Float[Tensor, "edges 3"]
    system: Int[Tensor, " atoms"]
    ptr: Int[Tensor, " systems_plus_one"]
    dataset: Int[Tensor, " atoms"] | None = None


class Evaluation(NamedTuple):
    """Energy without references [B] eV, forces [N, 3] eV/Å, and for gradient forces the virial dE/dstrain [B, 3, 3]."""

    interaction: Float[Tensor, " systems"]
    forces: Float[Tensor, "atoms 3"]
    virial: Float[Tensor, "systems 3 3"] | None

    def detached(self) -> Evaluation:
        """The same values, outside autograd's graph."""
        virial = None if self.virial is None else self.virial.detach()
        return Evaluation(self.interaction.detach(), self.forces.detach(), virial)


class Potential(nn.Module):
    """Energy as a sum over atoms, forces and stress as its gradients, for any backbone.

    The energy of an atom is its element's reference plus `energy_scale` times the readout of its scalars. Forces are
    taken with respect to the edge vectors and summed onto atoms, which also makes the net force exactly zero.
    `forces="direct"` predicts them without an energy behind them: faster, but they do not conserve energy.

    A potential trained on several data sets at once has references for each and tells the backbone of which data set
    atoms are: `batch.dataset`, by place in `datasets`.

    Args:
        backbone: a registered architecture.
        energy_references: eV, one per element of the backbone; a row per data set if there are several.
        energy_scale: eV; the rms force component of the training data, for outputs of order one.
        forces: "gradient" or "direct".
        datasets: names of the data sets it is trained on at once; none for a single one.
    """

    energy_references: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        energy_references: References,
        energy_scale: float,
        forces: Literal["gradient", "direct"] = "gradient",
        datasets: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.datasets = backbone, datasets
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

    @property
    def known_elements(self) -> Elements:
        """Atomic numbers it was trained on; in each data set, if there are several."""
        known = self.energy_references.reshape(-1, len(self.elements)).isfinite().tolist()
        found = tuple(frozenset(z for z, here in zip(self.elements, row, strict=True) if here) for row in known)
        return found if self.datasets else found[0]

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → `energy` [B] float64 eV, `interaction` [B] eV (without references), `forces` [N, 3] eV/Å.

        With gradient forces and a cell also `stress` [B, 3, 3] eV/Å³, tensile positive; NaN for systems that are not
        periodic in all three directions, which have none.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() or self.direct is None):
            found = self.evaluate(self.geometry(batch))
        return self.outputs(found if self.training else found.detached(), batch)

    def geometry(self, batch: Any) -> Geometry:
        """The tensors of a graph batch that the evaluation needs, in the model's precision."""
        dtype = self.readout[0].weight.dtype
        senders, receivers = batch.edge_index
        pos, shift = batch.pos.to(dtype), batch.edge_shift.to(dtype)
        return Geometry(batch.numbers, pos, senders, receivers, shift, batch.batch, batch.ptr, self.dataset(batch))

    def dataset(self, batch: Any) -> Int[Tensor, " atoms"]:
        """The data set that each atom of a batch is of; `UserError` if there are several and the batch does not say."""
        if not self.datasets:
            return torch.zeros_like(batch.batch)
        if "dataset" not in batch:
            raise UserError(
                f"the model was trained on the data sets {', '.join(self.datasets)}, and the batch does not say which"
                " its systems are of; take them from store.numbered(model.datasets)"
            )
        return batch.dataset[batch.batch]

    def energies(self, geometry: Geometry) -> tuple[Tensor, Tensor, Features]:
        """Energies without references [B] eV, the edge vectors [E, 3] to differentiate them by, and the features."""
        numbers, pos, senders, receivers, shift, system, ptr, dataset = geometry
        pos = pos.detach().requires_grad_(self.direct is None)
        vectors = pos.index_select(0, senders) + shift - pos.index_select(0, receivers)
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        graph = Graph(numbers, senders, receivers, vectors, lengths, dataset=dataset)
        features: Features = self.backbone(graph)
        atoms = self.readout(features.scalars)[:, 0] * self.energy_scale
        return sum_to(atoms, system, ptr.shape[0] - 1), vectors, features

    def evaluate(self, geometry: Geometry) -> Evaluation:
        """Energies, forces and virials; a function of tensors alone, so that it can be traced."""
        _, _, senders, receivers, _, system, ptr, _ = geometry
        atoms = geometry.numbers.shape[0]
        interaction, vectors, features = self.energies(geometry)
        if self.direct is not None:
            inputs = features.scalars if features.vectors is None else features.vectors
            return Evaluation(interaction, self.direct(inputs).squeeze(-1) * self.energy_scale, None)
        (pull,) = torch.autograd.grad(interaction.sum(), vectors, create_graph=self.training, materialize_grads=True)
        forces = sum_to(pull, receivers, atoms) - sum_to(pull, senders, atoms)
        # dE/dstrain = sum over edges of r ⊗ dE/dr; its antisymmetric part is the torque, zero if E is invariant.
        strain = sum_to(vectors[:, :, None] * pull[:, None, :], system[receivers], ptr.shape[0] - 1)
        return Evaluation(interaction, forces, 0.5 * (strain + strain.transpose(1, 2)))

    def outputs(self, found: Evaluation, batch: Any) -> dict[str, Tensor]:
        """What `forward` returns, from an evaluation of the same batch."""
        element = self.element_index(batch.numbers)
        references = self.energy_references.reshape(-1, len(self.elements))[self.dataset(batch), element]
        references = sum_to(references, batch.batch, batch.num_graphs)
        outputs = {
            "energy": references + found.interaction.double(),
            "interaction": found.interaction,
            "forces": found.forces,
        }
        if found.virial is not None and "cell" in batch:
            periodic = batch.pbc.all(dim=1)
            volume = torch.linalg.det(batch.cell.double()).abs().to(found.virial.dtype)
            volume = torch.where(periodic, volume, torch.full_like(volume, torch.nan))
            outputs["stress"] = found.virial / volume[:, None, None]
        return outputs


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Trainable parameters in all, and of the body: the module `body` if a model has one, else all but embeddings."""
    named = (getattr(module, "body", None) for module in model.modules())
    body = next((module for module in named if isinstance(module, nn.Module)), None)
    embeddings = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    total = _trainable(model)
    return total, total - sum(embeddings.values()) if body is None else _trainable(body)


def _trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
