"""The LightningModule for interatomic potentials: what is predicted, loss, optimisation, metrics."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.contracts.run import MetricValue, OptimizationSpec
from scisci.data.batch import first_systems
from scisci.data.module import StoreDataModule
from scisci.data.statistics import Statistics
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.potential import Potential
from scisci.symmetry.actions import rotate
from scisci.symmetry.measure import as_dtype, symmetry_errors
from scisci.tasks.metrics import Accumulator

LOG_EVERY = 20


class AtomisticTask(L.LightningModule):
    """Train a potential on energies and forces.

    The loss is energy_weight x mean over systems of |E - E_ref| / atoms (eV/atom) plus force_weight x mean over atoms
    of the norm of F - F_ref (eV/Å). AdamW; the learning rate rises over the warm-up and falls to zero at the last step.

    Args:
        architecture: name of an architecture: nequip, mpnn, transformer or one of an installed plug-in.
        size: one of the architecture's sizes, named by their approximate number of parameters.
        overrides: options of the architecture that differ from the size's preset.
        forces: "gradient" of the energy, or "direct" (not conservative).
        symmetry_treatment: "augmentation" turns every training system at random, "none" leaves it as it is.
        learning_rate: highest learning rate of AdamW.
        schedule: how the rate changes after the warm-up; "cosine" and "linear" end at zero.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled weight decay.
        energy_weight: weight of the energy term.
        force_weight: weight of the force term.
        symmetry_samples: samples per split on which symmetry errors are measured; 0 for none.
    """

    model: Potential

    def __init__(
        self,
        architecture: str = "nequip",
        size: str = "10k",
        overrides: dict[str, Any] | None = None,
        forces: Literal["gradient", "direct"] = "gradient",
        symmetry_treatment: Literal["none", "augmentation"] = "none",
        learning_rate: float = 0.005,
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        energy_weight: float = 10.0,
        force_weight: float = 10.0,
        symmetry_samples: int = 16,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check_recipe()
        self.options = registry.options(architecture, size, overrides)
        self.cutoff = float(self.options.get("cutoff", registry.default(architecture, "cutoff")))
        self.statistics: Statistics | None = None
        self.fingerprint = ""
        self.samples_seen = 0
        self.diverged: str | None = None
        self.test_results: dict[str, dict[str, MetricValue]] = {}
        self._validation = Accumulator()
        self._tests: dict[int, Accumulator] = {}
        self._first_batches: dict[int, Any] = {}

    @property
    def options_given(self) -> dict[str, Any]:
        """The task's arguments, as plain types; LightningCLI adds an entry of its own to the hyper-parameters."""
        return {name: value for name, value in self.hparams.items() if not name.startswith("_")}

    def build(self, statistics: Statistics) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        self.statistics = statistics
        inputs = Inputs(elements=statistics.elements)
        backbone = registry.build(self.hparams["architecture"], inputs, statistics.average_neighbors, **self.options)
        self.model = Potential(backbone, statistics.energy_references, statistics.energy_scale, self.hparams["forces"])

    def _check_recipe(self) -> None:
        recipe = {name: value for name, value in self.options_given.items() if name in OptimizationSpec.model_fields}
        try:
            OptimizationSpec(steps=1, **recipe)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]} is {first['input']!r}: {first['msg'].lower()}") from error

    def prepare(self, data: StoreDataModule) -> None:
        """Build the model from the statistics of the training subset, unless it is there already."""
        self.fingerprint = data.store.fingerprint
        if self.statistics is None:
            self.build(data.statistics(self.cutoff))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the statistics, as plain types, so that a checkpoint can be rebuilt anywhere."""
        assert self.statistics is not None
        checkpoint["statistics"] = self.statistics.as_dict()
        checkpoint["fingerprint"], checkpoint["samples_seen"] = self.fingerprint, self.samples_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model before its weights are loaded."""
        self.samples_seen = checkpoint["samples_seen"]
        if self.statistics is None:
            self.build(Statistics.from_dict(checkpoint["statistics"]))

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → energies and forces."""
        return self.model(batch)

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        atoms = (batch.ptr[1:] - batch.ptr[:-1]).to(outputs["energy"].dtype)
        energy = ((outputs["energy"] - batch.energy).abs() / atoms).mean()
        # The small constant keeps the gradient of the norm finite at zero error.
        force = ((outputs["forces"] - batch.forces).square().sum(dim=1) + 1e-12).sqrt().mean()
        return self.hparams["energy_weight"] * energy.to(force.dtype) + self.hparams["force_weight"] * force

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Loss of one batch, of turned copies if augmentation is on; a loss that is not finite ends the training."""
        if self.hparams["symmetry_treatment"] == "augmentation":
            seed = torch.randint(2**31, (1,)).item()
            batch, _ = rotate(batch, np.random.default_rng(int(seed)))
        loss = self.loss(self.model(batch), batch)
        if not torch.isfinite(loss):
            self.diverged = f"the loss became {loss.item()} at step {self.global_step}"
            self.trainer.should_stop = True
            return None
        self.samples_seen += batch.num_graphs
        # Logging costs as much as a small layer, and the curve has every step.
        if batch_idx % LOG_EVERY == 0:
            self.log("train/loss", loss, prog_bar=True, batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Accumulate errors on the ID validation split."""
        outputs = self.model(batch)
        self._validation.update(outputs, batch)
        self.log("val/loss", self.loss(outputs, batch), batch_size=batch.num_graphs, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log validation metrics."""
        for name, metric in self._validation.compute().items():
            self.log(f"val/{name}", metric.value, prog_bar=name == "force_mae", sync_dist=True)
        self._validation = Accumulator()

    def on_test_epoch_start(self) -> None:
        """Start afresh."""
        self._tests, self._first_batches = {}, {}

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accumulate errors per split; keep the first batch for the symmetry errors."""
        self._first_batches.setdefault(dataloader_idx, batch)
        self._tests.setdefault(dataloader_idx, Accumulator()).update(self.model(batch), batch)

    def on_test_epoch_end(self) -> None:
        """Put metrics and symmetry errors of every split into `test_results`."""
        splits = self.trainer.datamodule.test_splits  # type: ignore[attr-defined]
        for number, accumulator in self._tests.items():
            metrics = accumulator.compute()
            if self.hparams["symmetry_samples"]:
                metrics |= self.measure_symmetry(self._first_batches[number])
            self.test_results[splits[number]] = metrics
            self.log_dict({f"{splits[number]}/{name}": m.value for name, m in metrics.items()})

    def measure_symmetry(self, batch: Any) -> dict[str, MetricValue]:
        """Symmetry errors on the first `symmetry_samples` systems of a batch, in the model's precision and float64."""
        few = first_systems(batch, self.hparams["symmetry_samples"])
        exact_model, exact = as_dtype(self.model, few, torch.float64)
        in_float64 = symmetry_errors(exact_model, [exact])
        return symmetry_errors(self.model, [few]) | {f"{k}_float64": v for k, v in in_float64.items()}

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Energies, forces and where each system's atoms begin."""
        outputs = self.model(batch)
        return {"energy": outputs["energy"], "forces": outputs["forces"], "ptr": batch.ptr}

    def configure_optimizers(self) -> Any:
        """AdamW with the schedule over all steps of the trainer."""
        rate, warmup = self.hparams["learning_rate"], self.hparams["warmup"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=self.hparams["weight_decay"])
        steps, schedule = int(self.trainer.estimated_stepping_batches), self.hparams["schedule"]
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: relative_rate(step, steps, warmup, schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def relative_rate(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Learning rate at `step` of `steps`, relative to its highest: a linear rise, then the schedule down to zero."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    progress = min(1.0, (step - rise) / (steps - rise))
    return {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}[schedule]
