"""The LightningModule for interatomic potentials: what is predicted, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.contracts.run import Parametrization, TreatmentName
from scisci.data.module import StoreDataModule
from scisci.data.statistics import Statistics, elements_of
from scisci.data.store import Store
from scisci.models.blocks.graph import Inputs
from scisci.models.compiled import CompiledPotential
from scisci.models.framed import FramedPotential
from scisci.models.potential import Evaluation, Potential
from scisci.symmetry.measure import POTENTIAL
from scisci.tasks.base import Task
from scisci.tasks.metrics import potential_errors


class AtomisticTask(Task):
    """Train a potential on energies and forces.

    The loss is energy_weight x mean over systems of |E - E_ref| / atoms (eV/atom) plus force_weight x mean over atoms
    of the norm of F - F_ref (eV/Å) plus stress_weight x mean over components of |stress - stress_ref| (eV/Å³). AdamW;
    the learning rate rises over the warm-up and falls to zero at the last step.

    Args:
        architecture: name of an architecture; `scisci models list` shows them.
        size: one of the architecture's sizes, named by their approximate number of parameters.
        overrides: options of the architecture that differ from the size's preset.
        forces: "gradient" of the energy, or "direct" (not conservative).
        symmetry_treatment: what is done about rotations that the architecture does not know: docs/symmetry.md.
        symmetry_options: options of the treatment that differ from its defaults.
        learning_rate: highest learning rate of AdamW.
        parametrization: "standard", or "maximal_update": the learning rate is that of a model of the architecture's
            reference width, and suits wider ones too: docs/training.md.
        schedule: how the rate changes after the warm-up; "cosine" and "linear" end at zero.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled weight decay.
        energy_weight: weight of the energy term.
        force_weight: weight of the force term.
        stress_weight: weight of the stress term, for data that have stress.
        compiled: compile the training step first: it takes a minute or more, and then a step a third to half the time.
        symmetry_samples: samples per split on which symmetry errors are measured; 0 for none.
        symmetry_curve: validation samples on which errors under rotations are measured at every validation, for
            `curve.parquet`; 0 for none.
    """

    name = "atomistic"
    domain = "atoms"
    statistics_type = Statistics
    errors = staticmethod(potential_errors)
    headline = "force_mae"
    compared = POTENTIAL
    predicted: Mapping[str, str] = {"energy": "system", "forces": "point", "stress": "system"}

    model: Potential

    def __init__(
        self,
        architecture: str = "nequip",
        size: str = "10k",
        overrides: dict[str, Any] | None = None,
        forces: Literal["gradient", "direct"] = "gradient",
        symmetry_treatment: TreatmentName = "none",
        symmetry_options: dict[str, Any] | None = None,
        learning_rate: float = 0.005,
        parametrization: Parametrization = "standard",
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        energy_weight: float = 10.0,
        force_weight: float = 10.0,
        stress_weight: float = 0.0,
        compiled: bool = False,
        symmetry_samples: int = 16,
        symmetry_curve: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.vector_output = forces == "direct"
        if compiled and symmetry_treatment in ("frames", "latent"):
            raise UserError(f"the symmetry treatment {symmetry_treatment!r} is not compiled; leave compiled out")
        self.begin()

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """The elements that have reference energies; a data set without any is a `UserError`."""
        references = store.references.get("energy")
        if references is None:
            raise UserError(f"{store.path} has no per-element reference energies; import it again to add them")
        return Inputs(elements=elements_of(references), datasets=max(1, len(store.datasets)))

    def measure(self, data: StoreDataModule) -> Statistics:
        """Elements, energies and forces of the training subset."""
        return data.statistics(self.cutoff)

    def build(self, statistics: Statistics) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        self.statistics = statistics
        inputs = Inputs(elements=statistics.elements, datasets=max(1, len(statistics.datasets)))
        backbone = self.backbone(inputs, statistics.average_neighbors, self.options)
        arguments = backbone, statistics.energy_references, statistics.energy_scale, self.hparams["forces"]
        datasets = statistics.datasets
        if self.frames is None:
            self.model = Potential(*arguments, datasets=datasets)
        else:
            self.model = FramedPotential(*arguments, self.frames, datasets)
        # Not a module: it has no parameters of its own, and checkpoints are those of the model.
        self._compiled = CompiledPotential(self.model) if self.hparams["compiled"] else None

    def sizes(self) -> dict[str, float]:
        """The rms force component of the training subset; energies differ by as much when an atom moves by 1 Å."""
        return dict.fromkeys(self.compared.values(), self.statistics.energy_scale)

    def on_fit_start(self) -> None:
        """Refuse what would compile to something else than was asked for."""
        if self._compiled is not None and self.trainer.precision != "32-true":
            raise UserError(
                f"compiled training is in full precision, not {self.trainer.precision}; leave one of them out"
            )

    def outputs(self, batch: Any) -> dict[str, Tensor]:
        """The model's outputs in training, by the compiled graph if there is to be one."""
        return self.model(batch) if self._compiled is None else self._compiled(batch)

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        atoms = (batch.ptr[1:] - batch.ptr[:-1]).to(outputs["energy"].dtype)
        energy = ((outputs["energy"] - batch.energy).abs() / atoms).mean()
        # The small constant keeps the gradient of the norm finite at zero error.
        force = ((outputs["forces"] - batch.forces).square().sum(dim=1) + 1e-12).sqrt().mean()
        energy, force = energy.to(force.dtype) * self.batch_weights.systems, force * self.batch_weights.points
        loss = self.hparams["energy_weight"] * energy + self.hparams["force_weight"] * force
        if self.hparams["stress_weight"]:
            stress = stress_error(outputs, batch).to(loss.dtype) * self.batch_weights.systems
            loss = loss + self.hparams["stress_weight"] * stress
        return loss

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Reference energies, no forces and no stress."""
        interaction, forces = (torch.zeros_like(outputs[name]) for name in ("interaction", "forces"))
        virial = forces.new_zeros(batch.num_graphs, 3, 3) if "stress" in outputs else None
        return self.model.outputs(Evaluation(interaction, forces, virial), batch)


def stress_error(outputs: dict[str, Tensor], batch: Any) -> Tensor:
    """Mean over components of |stress - stress_ref| (eV/Å³) of the systems periodic in all three directions."""
    if "stress" not in batch or "stress" not in outputs:
        raise UserError("stress_weight needs data with stress, and forces as gradients; set it to 0")
    missed = (outputs["stress"] - batch.stress).abs()
    return missed[batch.pbc.all(dim=1)].mean()
