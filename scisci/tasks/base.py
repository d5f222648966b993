"""What training has in common in every domain: optimisation, metrics, symmetry errors, what checkpoints keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast, get_args, get_origin, get_type_hints

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import FSDPStrategy
from pydantic import ValidationError
from torch import Tensor, nn

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.run import MetricValue, OptimizationSpec
from scisci.data.batch import first_systems, graph_batch
from scisci.data.module import StoreDataModule
from scisci.data.sampling import Turn, Weights
from scisci.data.store import Store
from scisci.models import registry, width
from scisci.models.blocks.graph import Inputs
from scisci.symmetry.groups import group_named
from scisci.symmetry.measure import as_dtype, symmetry_errors
from scisci.tasks import treatments
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.metrics import Accumulator, Shares


class Task(L.LightningModule):
    """Train a model on one domain's samples, with AdamW and a learning rate that rises and then falls.

    A subclass states what the class attributes ask for, implements `inputs`, `measure`, `build`, `loss`, `constant`
    and `errors`, and calls `begin` at the end of its constructor. Its arguments include `architecture`, `size`,
    `overrides`, `symmetry_treatment`, `learning_rate`, `parametrization`, `schedule`, `warmup`, `weight_decay` and
    `symmetry_samples`; those of a task whose samples can be turned also `symmetry_options` and `symmetry_curve`.
    """

    name: ClassVar[str]
    """What `model.json` and checkpoints call the task."""
    domain: ClassVar[str]
    """Of which domain its samples are."""
    statistics_type: ClassVar[type[Any]]
    """What the model must know of the training subset."""
    headline: str
    """The metric that the progress bar shows."""
    compared: Mapping[str, str]
    """Quantities whose symmetry errors are measured → outputs of the model."""
    predicted: Mapping[str, str]
    """Outputs that `predict` writes, where the model gives them → "system" or "point"."""
    groups: ClassVar[tuple[str, ...]] = ("rotation", "reflection", "translation", "permutation")
    """Symmetry groups under which the model is measured after training, those that can act on the data."""

    vector_output: bool = True
    """Whether vectors of the backbone are read, if it has any."""

    model: nn.Module
    statistics: Any
    record: Callable[[str, dict[str, Tensor]], None] | None = None
    """Takes a split and what `told` says of its next batch, while tests are to leave predictions"""

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """What backbones are built for on this data set."""
        raise NotImplementedError

    def measure(self, data: StoreDataModule) -> Any:
        """Statistics of the training subset."""
        raise NotImplementedError

    def build(self, statistics: Any) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        raise NotImplementedError

    def sizes(self) -> dict[str, float]:
        """How large the labels of each compared output typically are."""
        return {name: self.statistics.scales[name] for name in self.compared.values()}

    def backbone(self, inputs: Inputs, average_neighbors: float, options: dict[str, Any]) -> nn.Module:
        """The architecture with these options, untrained; `UserError` where it needs no treatment."""
        name = self.hparams["architecture"]
        made = registry.build(name, inputs, average_neighbors, self.vector_output, **options)
        treatments.check_backbone(self.hparams["symmetry_treatment"], name, made)
        return made

    def collate(self, store: Store, indices: np.ndarray, edges: bool = True) -> Any:
        """The samples at `indices` of a store in one batch, with edges or without, as models are given them."""
        return self.seen(graph_batch(store.take(indices), self.cutoff if edges else 0))

    def rows(self, store: Store, indices: np.ndarray) -> np.ndarray:
        """Of which sample each row of evaluation is, for the samples at `indices` of a store: themselves, one each."""
        return indices

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        raise NotImplementedError

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Outputs, of the kind of the model's own, of the best prediction that does not depend on the input."""
        raise NotImplementedError

    def relative_loss(self, loss: float, constant: float) -> float:
        """How many times as bad a loss is as that of a constant prediction; 0 where there is nothing to predict."""
        return loss / constant if constant > 0 else 0.0

    @staticmethod
    def errors(outputs: dict[str, Tensor], batch: Any) -> Mapping[str, tuple[Tensor, Tensor] | Shares]:
        """Per-sample (numerator, weight) of each metric."""
        raise NotImplementedError

    def begin(self) -> None:
        """Check the hyper-parameters and look the architecture up; `UserError` where one is not possible."""
        self._check_recipe()
        self._check_choices()
        architecture = self.hparams["architecture"]
        if architecture in baselines.names():
            raise UserError(
                f"{architecture} is a baseline; give it to 'scisci baseline fit', or a study to 'scisci sweep'"
            )
        registry.require(architecture, self.domain)
        if self.hparams["parametrization"] == "maximal_update":
            width.widths(architecture)
        self.rates: dict[str, float] = {}
        self.options = registry.options(architecture, self.hparams["size"], self.overrides())
        self.cutoff = float(self.options.get("cutoff", registry.default(architecture, "cutoff", 0.0)))
        self.context = self.horizon = 0
        treatment = self.hparams["symmetry_treatment"], self.hparams.get("symmetry_options") or {}
        treatments.check_options(*treatment)
        self.frames = treatments.frames_of(*treatment)
        self.treatment: treatments.Treatment | None = None
        self.statistics = None
        self.fingerprint = ""
        self.samples_seen = 0
        self.batch_weights = Weights()
        self.diverged: str | None = None
        self.constant_loss: float | None = None
        self.test_results: dict[str, dict[str, MetricValue]] = {}
        self._validation, self._constant = Accumulator(self.errors), Accumulator(lambda outputs, batch: {})
        self._turned: Any = None
        self._tests: dict[int, Accumulator] = {}
        self._first_batches: dict[int, Any] = {}

    def overrides(self) -> dict[str, Any]:
        """Options of the architecture that differ from the size's preset."""
        return self.hparams["overrides"] or {}

    @property
    def options_given(self) -> dict[str, Any]:
        """The task's arguments, as plain types; LightningCLI adds an entry of its own to the hyper-parameters."""
        return {name: value for name, value in self.hparams.items() if not name.startswith("_")}

    def _check_recipe(self) -> None:
        recipe = {name: value for name, value in self.options_given.items() if name in OptimizationSpec.model_fields}
        try:
            OptimizationSpec(steps=1, **recipe)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]} is {first['input']!r}: {first['msg'].lower()}") from error

    def _check_choices(self) -> None:
        """The command line holds arguments to their types by itself; studies and code do not."""
        if (count := self.hparams.get("symmetry_curve", 0)) < 0:
            raise UserError(f"symmetry_curve is {count}, but must be 0 or more")
        for name, hint in get_type_hints(type(self).__init__).items():
            if get_origin(hint) is Literal and (value := self.hparams[name]) not in get_args(hint):
                raise unknown_name(f"{name} of the task {self.name!r}", str(value), get_args(hint))

    def prepare(self, data: StoreDataModule) -> None:
        """Build the model from the statistics of the training subset, unless it is there already."""
        self.fingerprint = data.store.fingerprint
        if self.statistics is None:
            self._make(self.measure(data))

    def _make(self, statistics: Any) -> None:
        """Build what is trained: the model, and what its symmetry treatment holds; as wide models are to start."""
        self.build(statistics)
        made = treatments.TREATMENTS[self.hparams["symmetry_treatment"]]
        self.treatment = made(self, **self.hparams.get("symmetry_options") or {})
        if self.hparams["parametrization"] == "maximal_update":
            self.rates = width.maximal_update(self, self._at_reference_width(statistics))

    def _at_reference_width(self, statistics: Any) -> Task:
        """The same task with a model of its architecture's reference width; takes nothing from the random state."""
        options = width.at_reference(self.hparams["architecture"], self.options)
        reference = type(self)(**self.options_given | {"parametrization": "standard", "overrides": options})
        with torch.random.fork_rng(devices=[]):
            reference._make(statistics)
        return reference

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the statistics, as plain types, so that a checkpoint can be rebuilt anywhere."""
        checkpoint["task"], checkpoint["statistics"] = self.name, self.statistics.as_dict()
        checkpoint["fingerprint"], checkpoint["samples_seen"] = self.fingerprint, self.samples_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model before its weights are loaded."""
        self.check_checkpoint(checkpoint)
        self.samples_seen = checkpoint["samples_seen"]
        if self.statistics is None:
            self._make(self.statistics_type.from_dict(checkpoint["statistics"]))

    @classmethod
    def check_name(cls, name: str) -> None:
        """Raise `UserError` unless a model was trained on this task."""
        if name != cls.name:
            raise UserError(f"the model is of the task {name!r}, the data is for {cls.name!r}; give other data")

    @classmethod
    def check_checkpoint(cls, checkpoint: dict[str, Any]) -> None:
        """Raise `UserError` unless a checkpoint is of this task; one that does not say holds a potential."""
        cls.check_name(checkpoint.get("task", "atomistic"))

    def seen(self, batch: Any) -> Any:
        """What models are given of a batch: all of it, unless a task says otherwise."""
        return batch

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → the model's outputs."""
        return self.model(batch)

    def outputs(self, batch: Any) -> dict[str, Tensor]:
        """The model's outputs in training."""
        return self.model(batch)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        """Loss of one batch, as the symmetry treatment has it; a loss that is not finite ends the training.

        `whole` is its mean over all processes, which all of them end on.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        turn = Turn(batch.num_graphs) if data is None else data.batches.turn()
        batch = self.seen(batch)
        self.batch_weights = turn.weights
        loss = self.treated(self.outputs, batch, turn.before)
        self.batch_weights = Weights()
        whole: Any = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        if not torch.isfinite(whole):
            self.diverged = f"the loss became {whole.item()} at step {self.global_step}"
            self.trainer.should_stop = True
            # Processes that wait for each other's gradients cannot leave a step out; this one is the last.
            return None if self.trainer.world_size == 1 else {"loss": loss}
        self.samples_seen += turn.samples
        # Logging costs as much as a small layer, and the curve has every step.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss", whole, prog_bar=True, batch_size=batch.num_graphs)
        return {"loss": loss, "whole": whole}

    def treated(self, model: Callable[[Any], dict[str, Tensor]], batch: Any, before: int = 0) -> Tensor:
        """The loss of a batch under the symmetry treatment.

        Its draws are decided by the seed and how many samples were seen, `before` those of processes before this one.
        """
        assert self.treatment is not None
        rng = np.random.default_rng([torch.initial_seed(), self.samples_seen + before])
        loss: Tensor = self.treatment(self, model, batch, rng)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Accumulate errors on the ID validation split; keep the first samples for the curve of symmetry errors."""
        batch = self.seen(batch)
        if batch_idx == 0 and (count := self.hparams.get("symmetry_curve")):
            self._turned = first_systems(batch, count)
        outputs, number = self.model(batch), batch_idx
        if self.trainer.world_size > 1:
            number = self.trainer.val_dataloaders.batch_sampler.number(batch_idx)  # type: ignore[union-attr]
        self._validation.update(outputs, batch, number, self.loss(outputs, batch))
        if self.constant_loss is None:
            self._constant.update({}, batch, number, self.loss(self.constant(outputs, batch), batch))

    def on_validation_epoch_end(self) -> None:
        """Log validation metrics, and errors under the same rotations every time."""
        if self._turned is not None:
            found = symmetry_errors(self.model, [self._turned], 0, ("rotation",), self.compared)
            # The samples are those of the first process, however many there are.
            for name, metric in self.trainer.strategy.broadcast(found).items():
                self.log(f"val/{name}", metric.value)
        if self.constant_loss is None:
            self._constant.gather()
            self.constant_loss = self._constant.loss()
        self._validation.gather()
        self.log("val/loss", self._validation.loss())
        for name, metric in self._validation.compute().items():
            self.log(f"val/{name}", metric.value, prog_bar=name == self.headline)
        self._validation = Accumulator(self.errors)

    def on_test_epoch_start(self) -> None:
        """Start afresh."""
        self._tests, self._first_batches = {}, {}

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accumulate errors per split; keep the first batch for the symmetry errors."""
        batch = self.seen(batch)
        self._first_batches.setdefault(dataloader_idx, batch)
        split = self.trainer.datamodule.test_splits[dataloader_idx]  # type: ignore[attr-defined]
        self.evaluate(batch, split, self._tests.setdefault(dataloader_idx, Accumulator(self.errors)))

    def evaluate(self, batch: Any, split: str, errors: Accumulator) -> None:
        """Add the model's errors on a batch of a split to `errors`, and record its predictions if these are kept."""
        outputs = self.complete(self.model(batch), batch)
        errors.update(outputs, batch)
        if self.record is not None:
            self.record(split, self.told(outputs, batch))

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
        groups = [name for name in self.groups if group_named(name).obstacle(few) is None]
        if not groups:
            return {}
        exact_model, exact = as_dtype(self.model, few, torch.float64)
        in_float64 = symmetry_errors(exact_model, [exact], groups=groups, quantities=self.compared)
        here = symmetry_errors(self.model, [few], groups=groups, quantities=self.compared)
        return here | {f"{name}_float64": value for name, value in in_float64.items()}

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """What is predicted, and where each system's points begin."""
        batch = self.seen(batch)
        return self.told(self.complete(self.model(batch), batch), batch)

    def complete(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """The model's outputs, with what errors and predictions both need of them worked out."""
        return outputs

    def told(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """What a predictions file keeps of complete outputs, and where each system's points begin."""
        return {name: outputs[name] for name in self.predicted if name in outputs} | {"ptr": batch.ptr}

    def optimizer(self) -> torch.optim.AdamW:
        """AdamW with a group of parameters per learning rate; all shrink alike by decay."""
        rate, decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(self.rates.get(name, 1.0), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "lr": rate * by, "weight_decay": decay / by} for by, group in groups.items()]
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, also where every process has a part of them."""
        if isinstance(self.trainer.strategy, FSDPStrategy) and gradient_clip_val:
            cast(Any, self.trainer.model).clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """AdamW with the schedule over all steps of the trainer."""
        optimizer, warmup = self.optimizer(), self.hparams["warmup"]
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
