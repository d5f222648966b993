"""The LightningModule for time series: what comes next, as a distribution or as points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import SERIES_GROUPS
from scisci.contracts.run import MetricValue
from scisci.data.batch import first_systems
from scisci.data.module import StoreDataModule
from scisci.data.series import SeriesDataset, checked_times, series_batch
from scisci.data.store import Store
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.blocks.instance_norm import instance
from scisci.models.blocks.mixture import StudentMixture
from scisci.symmetry.forecasts import measure_forecasts
from scisci.symmetry.measure import Errors, as_dtype, relative_rms
from scisci.tasks.base import Task
from scisci.tasks.metrics import Accumulator
from scisci.tasks.series_metrics import likelihood_errors, series_errors, summarise, to_steps

HUBER_DELTA = 2.0
# Degrees of freedom from which Student's t is normal in float32, and an exponent that float64 has room for.
NORMAL, LARGEST = 1e6, 700.0


@dataclass(frozen=True)
class SeriesStatistics:
    """What is known of the training subset: the greatest number of channels. Models need nothing else."""

    channels: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SeriesStatistics:
        """Undo `as_dict`."""
        return cls(**values)


class SeriesTask(Task):
    """Train a model to forecast time series.

    The loss is the mean over scored steps of the negative log-likelihood, or for models that forecast points of
    Huber's loss (delta 2), of values in units of each channel's mean and standard deviation over the context; plus
    what else the model wants kept small. AdamW; the learning rate rises over the warm-up and falls to zero at the last
    step.

    Args:
        architecture: name of an architecture for series; `scisci models list` shows them.
        size: one of the architecture's sizes.
        overrides: options of the architecture that differ from the size's preset.
        context: steps of the past that the model is given.
        horizon: steps that it forecasts.
        symmetry_treatment: only "none".
        learning_rate: highest learning rate of AdamW.
        parametrization: only "standard".
        schedule: how the rate changes after the warm-up; "cosine" and "linear" end at zero.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled weight decay.
        symmetry_samples: samples per split on which symmetry errors are measured; 0 for none.
    """

    name = "series"
    domain = "series"
    statistics_type = SeriesStatistics
    errors = staticmethod(series_errors)
    headline = "series_mse"
    compared: Mapping[str, str] = {"forecast": "forecast"}
    predicted: Mapping[str, str] = {"mean": "point", "quantiles": "point", "start": "system"}
    groups = SERIES_GROUPS

    def __init__(
        self,
        architecture: str = "dlinear",
        size: str = "linear",
        overrides: dict[str, Any] | None = None,
        context: int = 512,
        horizon: int = 96,
        symmetry_treatment: Literal["none"] = "none",
        learning_rate: float = 0.001,
        parametrization: Literal["standard"] = "standard",
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        symmetry_samples: int = 16,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, steps in (("context", context), ("horizon", horizon)):
            if steps < 1:
                raise UserError(f"{name} is {steps}, but must be at least 1")
        self.begin()
        self.context, self.horizon = context, horizon
        self._validation = Accumulator(likelihood_errors)

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """Nothing but the series."""
        return Inputs(positions=False)

    def measure(self, data: StoreDataModule) -> SeriesStatistics:
        """How many channels there are; `UserError` where a split has series too short for the horizon."""
        data.require(self.domain)
        samples = {"val": data.val_samples} | dict.fromkeys(data.test_splits, data.test_samples)
        evaluated = [data.store.split(name).indices(count) for name, count in samples.items()]
        for indices in (data.train_indices(), *evaluated):
            checked_times(data.store, indices, self.horizon)
        return SeriesStatistics(int(data.store.sample_column("channels")[data.train_indices()].max()))

    def backbone(self, inputs: Inputs, average_neighbors: float, options: dict[str, Any]) -> nn.Module:
        """The architecture for this context and horizon."""
        return registry.build_forecaster(self.hparams["architecture"], self.context, self.horizon, **options)

    def build(self, statistics: SeriesStatistics) -> None:
        """Make the model; initialised from torch's current random state."""
        self.statistics = statistics
        self.model = self.backbone(Inputs(positions=False), 0.0, self.options)

    def collate(self, store: Store, indices: np.ndarray, edges: bool = True) -> Any:
        """The last window of each of the series at `indices`."""
        return series_batch(store.take(indices), store.metadata("freq")[indices], self.context, self.horizon)

    def rows(self, store: Store, indices: np.ndarray) -> np.ndarray:
        """Of which series each window of evaluation is."""
        return SeriesDataset(store, indices, self.context, self.horizon, rolling=True).samples

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch; a model that does not say what is to be scored forecasts the future."""
        values = outputs.get("values", batch.future)
        weights = outputs.get("weights", batch.future_observed).to(values.dtype)
        units = instance(batch.past, batch.past_observed)
        if "point" in outputs:
            missed = huber_loss(
                units.normalise(outputs["point"]), units.normalise(values), reduction="none", delta=HUBER_DELTA
            )
        else:
            missed = -StudentMixture.of(outputs).log_prob(values) - units.scale.log()
        loss = self.batch_weights.points * (missed * weights).sum() / weights.sum().clamp(min=1)
        return loss + outputs.get("penalty", 0.0)

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Each channel's mean over the context; where a density is asked for, normal with its standard deviation."""
        units, self._density = instance(batch.past, batch.past_observed), "point" not in outputs
        mean = units.mean.expand_as(batch.future)
        if not self._density:
            return {"point": mean}
        scale = units.scale.expand_as(mean)[..., None]
        even = torch.zeros_like(scale)
        return {"logits": even, "df": torch.full_like(scale, NORMAL), "loc": mean[..., None], "scale": scale}

    def relative_loss(self, loss: float, constant: float) -> float:
        """How many times as bad a loss is; of densities, which have logarithms, by what factor they are lower."""
        return math.exp(min(loss - constant, LARGEST)) if self._density else super().relative_loss(loss, constant)

    def on_validation_epoch_end(self) -> None:
        """Log validation metrics; quantiles, which take longer than the model, are left to tests."""
        super().on_validation_epoch_end()
        self._validation = Accumulator(likelihood_errors)

    def symmetry_found(
        self, model: nn.Module, batches: Iterable[Any], groups: Sequence[str], elements: int = 1, seed: int = 0
    ) -> dict[tuple[str, str], Errors]:
        """Symmetry errors of the model's forecasts, of mixtures of the mean of their places."""
        return measure_forecasts(
            lambda batch: centre(model(batch)),
            batches,
            groups,
            normalised,
            getattr(model, "patch", None),
            elements,
            seed,
        )

    def measure_symmetry(self, batch: Any) -> dict[str, MetricValue]:
        """Symmetry errors on the first `symmetry_samples` windows of a batch, in the model's precision and float64."""
        few = first_systems(batch, self.hparams["symmetry_samples"])
        found = {"": self.symmetry_found(self.model, [few], self.groups)}
        exact_model, exact = as_dtype(self.model, few, torch.float64)
        found["_float64"] = self.symmetry_found(exact_model, [exact], self.groups)
        return {
            f"symmetry_{group}_{quantity}{precision}": relative_rms(errors.squares.mean(axis=1), errors.signals)
            for precision, measured in found.items()
            for (group, quantity), errors in measured.items()
        }

    def complete(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Mean, deciles and log density."""
        return summarise(outputs, batch)

    def told(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Mean and deciles, step by step and channel by channel, and at which step of its series a forecast begins."""
        return to_steps(outputs, batch)


def centre(outputs: dict[str, Tensor]) -> Tensor:
    """[B, C, H] the points, or the places of a mixture's components averaged by their weights."""
    return outputs["point"] if "point" in outputs else (outputs["logits"].softmax(-1) * outputs["loc"]).sum(-1)


def normalised(batch: Any, values: Tensor) -> Tensor:
    """Values [B, C, n] in units of each channel's mean and standard deviation over the context; NaN where that is 0."""
    units = instance(batch.past, batch.past_observed)
    return torch.where(units.varies, units.normalise(values), torch.nan)
