"""The LightningModule for point clouds of cosmology: velocities of halos, or parameters of their universe."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.contracts.run import Parametrization, TreatmentName
from scisci.data.module import StoreDataModule
from scisci.data.statistics import PointStatistics, cloud_statistics
from scisci.data.store import Store
from scisci.models.blocks.graph import Inputs
from scisci.models.blocks.waves import BoxWaves
from scisci.models.cloud import Cloud, Target, inputs_of
from scisci.models.framed import Framed
from scisci.tasks.base import Task
from scisci.tasks.heaviest import check_heaviest, heaviest
from scisci.tasks.metrics import PARAMETERS, parameter_errors, velocity_errors


class CloudTask(Task):
    """Train a model on point clouds, from the positions of their points alone.

    With the target "velocities" it predicts a peculiar velocity (km/s) per point, with "parameters" Omega_m and
    sigma_8 of the cloud, read off a mean over its points. The loss is the mean squared error over points and
    components, or over parameters, in units of the target's variance in the training subset. AdamW; the learning rate
    rises over the warm-up and falls to zero at the last step.

    Args:
        architecture: name of an architecture; `scisci models list` shows them.
        size: one of the architecture's sizes, named by their approximate number of parameters as a potential.
        overrides: options of the architecture that differ from the size's preset.
        target: what is predicted.
        cutoff: points further apart do not see each other, Mpc/h; images of a periodic box count as neighbours.
        waves: points also carry sums over their whole periodic box, by so many plane waves along a side: the smoothed
            number density and the displacement that it causes. 0 leaves them with what is within the cutoff.
        heaviest: only so many points of every cloud are seen, those of the largest masses; the default is all. At a
            fixed number of points, how many there are says nothing.
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

    name = "clouds"
    domain = "cloud"
    statistics_type = PointStatistics
    # A translation of all space leaves a periodic cloud's edges as they are; one in the box does not.
    groups = ("rotation", "reflection", "torus", "cubic", "permutation")

    model: Cloud | Framed

    def __init__(
        self,
        architecture: str = "egnn",
        size: str = "30k",
        overrides: dict[str, Any] | None = None,
        target: Literal["velocities", "parameters"] = "velocities",
        cutoff: float = 20.0,
        waves: int = 0,
        heaviest: int | None = None,
        symmetry_treatment: TreatmentName = "none",
        symmetry_options: dict[str, Any] | None = None,
        learning_rate: float = 0.003,
        parametrization: Parametrization = "standard",
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        symmetry_samples: int = 4,
        symmetry_curve: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if waves < 0:
            raise UserError(f"waves is {waves}, but must be 0 or more")
        per_point = target == "velocities"
        self.vector_output = per_point
        self.targets = ("velocities",) if per_point else PARAMETERS
        self.errors = velocity_errors if per_point else parameter_errors  # type: ignore[method-assign]
        self.headline = f"{self.targets[0]}_r2"
        self.compared = {name: name for name in self.targets}
        self.predicted = dict.fromkeys(self.targets, "point" if per_point else "system")
        self.begin()

    def overrides(self) -> dict[str, Any]:
        """The cutoff, unless the overrides have one, and they."""
        return {"cutoff": self.hparams["cutoff"], **super().overrides()}

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """Positions alone."""
        return inputs_of(())

    def measure(self, data: StoreDataModule) -> PointStatistics:
        """Typical velocities or parameters of the training subset."""
        data.require(self.domain)
        indices = data.train_indices()
        if self.hparams["heaviest"] is not None:
            check_heaviest(data.store, indices, self.hparams["heaviest"])
        return cloud_statistics(data.store, indices, self.cutoff, self.targets, self.seen)

    def seen(self, batch: Any) -> Any:
        """The heaviest points, where only they are to be seen."""
        count = self.hparams["heaviest"]
        return batch if count is None else heaviest(batch, count)

    def build(self, statistics: PointStatistics) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        self.statistics = statistics
        kind: Literal["vector", "system"] = "vector" if self.vector_output else "system"
        targets = tuple(
            Target(name, kind, statistics.scales[name], statistics.offsets.get(name, 0.0)) for name in self.targets
        )
        waves = BoxWaves(self.hparams["waves"]) if self.hparams["waves"] else None
        backbone = self.backbone(inputs_of((), waves), statistics.average_neighbors, self.options)
        cloud = Cloud(backbone, (), targets, waves)
        self.model = cloud if self.frames is None else Framed(cloud, self.frames)

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        scales = self.statistics.scales
        parts = [((outputs[name] - batch[name]) / scales[name]).square().mean() for name in self.targets]
        return torch.stack(parts).mean() * (
            self.batch_weights.points if self.vector_output else self.batch_weights.systems
        )

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """No velocities, or the training subset's mean parameters."""
        return {name: torch.full_like(outputs[name], self.statistics.offsets.get(name, 0.0)) for name in self.targets}
