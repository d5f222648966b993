"""The LightningModule for particles: where they are at a later time, from where they are and how fast they move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from scisci.contracts.run import Parametrization, TreatmentName
from scisci.data.module import StoreDataModule
from scisci.data.statistics import PointStatistics, particle_statistics
from scisci.data.store import Store
from scisci.models.blocks.graph import Inputs
from scisci.models.cloud import Cloud, Field, Target, inputs_of
from scisci.models.framed import Framed
from scisci.symmetry.measure import PARTICLES
from scisci.tasks.base import Task
from scisci.tasks.metrics import particle_errors

FIELDS = (Field("charges", "scalar"), Field("velocities", "vector"))


class ParticleTask(Task):
    """Train a model on the displacements of charged particles.

    The loss is the mean over particles and components of (d - d_ref)², in units of the mean square of d_ref in the
    training subset. AdamW; the learning rate rises over the warm-up and falls to zero at the last step.

    Args:
        architecture: name of an architecture: egnn, mpnn, transformer or another of `scisci models list`.
        size: one of the architecture's sizes, named by their approximate number of parameters as a potential.
        overrides: options of the architecture that differ from the size's preset.
        cutoff: particles further apart do not see each other; in the unit of the positions. The forces are of long
            range, and the default joins all but a few pairs of `charged-nbody`.
        symmetry_treatment: what is done about rotations that the architecture does not know: docs/symmetry.md.
        symmetry_options: options of the treatment that differ from its defaults.
        learning_rate: highest learning rate of AdamW.
        parametrization: "standard", or "maximal_update": the learning rate is that of a model of the architecture's
            reference width, and suits wider ones too: docs/training.md.
        schedule: how the rate changes after the warm-up; "cosine" and "linear" end at zero.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled weight decay.
        symmetry_samples: samples per split on which symmetry errors are measured; 0 for none.
        symmetry_curve: validation samples on which errors under rotations are measured at every validation, for
            `curve.parquet`; 0 for none.
    """

    name = "particles"
    domain = "particles"
    statistics_type = PointStatistics
    errors = staticmethod(particle_errors)
    headline = "position_mse"
    compared = PARTICLES
    predicted: Mapping[str, str] = {"positions": "point"}

    model: Cloud | Framed

    def __init__(
        self,
        architecture: str = "egnn",
        size: str = "30k",
        overrides: dict[str, Any] | None = None,
        cutoff: float = 20.0,
        symmetry_treatment: TreatmentName = "none",
        symmetry_options: dict[str, Any] | None = None,
        learning_rate: float = 0.005,
        parametrization: Parametrization = "standard",
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        symmetry_samples: int = 16,
        symmetry_curve: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.begin()

    def overrides(self) -> dict[str, Any]:
        """The cutoff, unless the overrides have one, and they."""
        return {"cutoff": self.hparams["cutoff"], **super().overrides()}

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """A charge and a velocity per particle."""
        return inputs_of(FIELDS)

    def measure(self, data: StoreDataModule) -> PointStatistics:
        """Typical charges, velocities and displacements of the training subset."""
        data.require(self.domain)
        return particle_statistics(data.store, data.train_indices(), self.cutoff)

    def build(self, statistics: PointStatistics) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        self.statistics = statistics
        fields = tuple(field._replace(scale=statistics.scales[field.name]) for field in FIELDS)
        target = Target("displacement", "vector", statistics.scales["displacement"])
        backbone = self.backbone(inputs_of(fields), statistics.average_neighbors, self.options)
        cloud = Cloud(backbone, fields, (target,))
        # Velocities have a say in the axes, since two particles alone determine one only.
        self.model = cloud if self.frames is None else Framed(cloud, self.frames, ("velocities",))

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        missed = outputs["displacement"] - (batch.target_positions - batch.pos)
        return self.batch_weights.points * missed.square().mean() / self.statistics.scales["displacement"] ** 2

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """That particles stay where they are."""
        return {"displacement": torch.zeros_like(outputs["displacement"])}

    def told(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Positions at the later time, in float64 so that displacements come back, and where particles begin."""
        return {"positions": batch.pos.double() + outputs["displacement"].double(), "ptr": batch.ptr}
