"""From a study to its runs: a plan holds all that decides them, and yields their specs one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.files import write_text
from scisci.contracts.run import OptimizationSpec, RunSpec
from scisci.sweep.resources import Needs
from scisci.sweep.study import Study

if TYPE_CHECKING:
    from scisci.models.blocks.graph import Inputs

PLAN_FILE = "plan.json"
# Arguments of a task for which a study has keys of its own.
_OWN_KEYS = {
    *OptimizationSpec.model_fields,
    "architecture",
    "size",
    "overrides",
    "symmetry_treatment",
    "symmetry_samples",
}
# Fewer are no training: the warm-up, a tenth of them, would have none.
LEAST_STEPS = 10


@dataclass(frozen=True)
class Cell:
    """The runs of one study entry and size that cost the same: they differ in data, learning rate and seed only.

    `steps`, and the amounts of `data` that have them, are said where those of an entry and size differ: by epochs, or
    by budgets of compute.
    """

    label: str
    size: str
    steps: int | None = None
    data: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.label} {self.size}" + ("" if self.steps is None else f" {self.steps} steps")


class Work(NamedTuple):
    """What one run of a cell takes: optimisation steps, and training FLOPs, NaN where they were not counted."""

    steps: int
    flops: float


class Plan(BaseModel):
    """A study bound to the content of its data set and to the code that trains.

    Runs are generated, never held: a plan of 10⁵ runs is as small as one of ten. Written to the sweep's
    folder as `plan.json`, it is what status and collect go by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    study: Study
    domain: str
    fingerprint: str
    code_version: str
    flops: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="entry → size → training FLOPs per sample; of a baseline for all its passes"
    )
    available: int | None = Field(default=None, description="samples of the training split")
    extended: bool = Field(default=False, description="whether 'sweep extend' has added to the study of a file")
    earlier: tuple[str, ...] = Field(default=(), description="versions of the code whose recordings count too")

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order of the study file."""
        entries = self.study.architectures.items()
        return [cell for label, entry in entries for size in entry.sizes for cell in self._cells(label, size)]

    def _cells(self, label: str, size: str) -> list[Cell]:
        if self.study.optimization.steps:
            return [Cell(label, size)]
        grouped: dict[int, list[int]] = {}
        for steps, data in self._trainings(label, size):
            grouped.setdefault(steps, []).append(data)
        return [Cell(label, size, steps, tuple(data)) for steps, data in grouped.items()]

    def _trainings(self, label: str, size: str) -> list[tuple[int, int]]:
        """(steps, training samples) of an entry and size, in the order of the study file."""
        study, batch = self.study, self.study.optimization.batch_size
        if not study.compute:
            return [(study.steps(label, data), data) for data in study.amounts]
        found = []
        for budget in study.compute:
            samples = budget / self.flops[label][size]
            for data in study.amounts or (self._seen(samples, batch),):
                found.append((round(samples / study.batch(data)), data))
        return found

    def _seen(self, samples: float, batch: int) -> int:
        """Of so many samples that whole batches see, each once, as many as there are."""
        assert self.available is not None
        return min(max(1, round(samples / batch)) * batch, self.available)

    def amounts(self, cell: Cell) -> tuple[int, ...]:
        """Numbers of training samples that runs of a cell have."""
        return cell.data or self.study.amounts

    def work(self, cell: Cell, data: int | None = None) -> Work:
        """What the run of a cell with so much data takes, by default with the most.

        All take the same, but those of baselines and those with less data than a batch.
        """
        data = data or max(self.amounts(cell))
        steps = cell.steps or self.study.steps(cell.label, data)
        samples = steps * self.study.batch(data) if self.study.trained(cell.label) else data
        return Work(steps, samples * self.flops.get(cell.label, {}).get(cell.size, math.nan))

    def works(self) -> dict[Cell, Work]:
        """The work of every cell."""
        return {cell: self.work(cell) for cell in self.cells}

    def count(self, cell: Cell) -> int:
        """How many runs a cell has."""
        return len(self.amounts(cell)) * max(1, len(self.study.learning_rates)) * len(self.study.seeds)

    def __len__(self) -> int:
        return self.study.runs

    def spec(self, cell: Cell, number: int) -> RunSpec:
        """Run `number` of a cell: data amounts in the order of the study file, learning rates and seeds within each."""
        study = self.study
        rates = study.learning_rates or (None,)
        number, seed = divmod(number, len(study.seeds))
        amount, rate = divmod(number, len(rates))
        data = self.amounts(cell)[amount]
        recipe = study.recipe(cell.label, cell.size, data, rates[rate], cell.steps)
        return self._spec(cell.label, recipe, size=cell.size, data=data, seed=study.seeds[seed])

    def bare_spec(self, label: str, size: str) -> RunSpec:
        """A run of one step, to measure a model on."""
        data = max(self.study.amounts, default=self.available or 1)
        return self._spec(label, self.study.recipe(label, size, data, steps=1), size=size, data=data)

    def _spec(self, label: str, recipe: OptimizationSpec, **one: Any) -> RunSpec:
        study, entry = self.study, self.study.architectures[label]
        return RunSpec(
            study=study.study,
            dataset=study.dataset,
            fingerprint=self.fingerprint,
            architecture=study.architecture(label),
            variant=study.variant(label),
            overrides=entry.overrides,
            treatment=entry.treatment,
            task=study.task,
            optimization=recipe,
            evaluation=study.evaluation,
            code_version=self.code_version,
            loggers=study.loggers,
            energy=study.energy,
            **one,
        )

    def needs(self, cell: Cell) -> Needs:
        """What each run of a cell occupies."""
        return self.study.needs(cell.label, cell.size)

    def specs(self) -> Iterator[tuple[Cell, RunSpec]]:
        """All runs with their cells, in the order of the study file."""
        for cell in self.cells:
            for number in range(self.count(cell)):
                yield cell, self.spec(cell, number)

    def write(self, folder: Path) -> None:
        """Put the plan into a sweep's folder; a folder that belongs to another study is a `UserError`.

        So is one whose plan was extended, for a plan that was not.
        """
        path = folder / PLAN_FILE
        text = self.model_dump_json(indent=2) + "\n"
        if path.exists():
            present = Plan.read(folder)
            if present.study.study != self.study.study:
                raise UserError(
                    f"{folder} holds the study {present.study.study!r}, not {self.study.study!r}; choose another --out"
                )
            if present == self:
                return
            if present.extended and not self.extended:
                raise UserError(
                    f"{folder} was extended beyond its study file; go on with 'scisci sweep run {folder}', or remove "
                    f"{path} to go back to the file"
                )
        write_text(path, text)

    @classmethod
    def read(cls, folder: Path | str) -> Plan:
        """The plan of a sweep's folder; a folder without one is a `UserError`."""
        path = Path(folder) / PLAN_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"no sweep in {folder}: it has no {PLAN_FILE}; start one with 'scisci sweep run'"
            ) from error
        except ValidationError as error:
            raise UserError(
                f"{path} is damaged or of another version of scisci; remove it and start 'scisci sweep run' again"
            ) from error


def make_plan(study: Study, known: Plan | None = None) -> Plan:
    """Bind a study to its data set and to this code, count its FLOPs, and refuse what could not run.

    Opens the data set as training does and builds every model of the study once. FLOPs that an earlier plan, `known`,
    has of the same models are taken from it. Raises `UserError` for an unknown data set, architecture, size, option or
    split, for options that no model can be built with, for a data set without what training needs, for more training
    samples than there are, and for budgets of compute that do not make a training.
    """
    from scisci.data.module import StoreDataModule
    from scisci.tasks.domains import task_for
    from scisci.tasks.energy import check_energy
    from scisci.tasks.loggers import parse as parse_loggers
    from scisci.tasks.version import code_version

    data = StoreDataModule(study.dataset, test_splits=list(study.evaluation.splits))
    store = data.store
    available = len(store.split("train"))
    if max(study.amounts, default=0) > available:
        raise UserError(
            f"the study asks for {max(study.amounts)} training samples but {study.dataset} has {available}; "
            "lower the data amounts"
        )
    task = task_for(store.domain)
    data.check(task.domain)
    of_some = {"energy_weight", "force_weight", "stress_weight", "compiled"} & study.optimization.model_fields_set
    if foreign := sorted(of_some - set(signature(task.__init__).parameters)):
        raise UserError(f"the study's {foreign[0]} means nothing for data of the domain {store.domain!r}; remove it")
    allowed = set(signature(task.__init__).parameters) - {"self", *_OWN_KEYS}
    if strange := sorted(set(study.task) - allowed):
        raise unknown_name(f"option in task of data of the domain {store.domain!r}", strange[0], allowed)
    parse_loggers(study.loggers)
    if study.energy:
        check_energy()
    inputs = task.inputs(store)
    for label in study.architectures:
        _build(study, label, inputs, task)
    plan = Plan(
        study=study,
        domain=store.domain,
        fingerprint=store.fingerprint,
        code_version=code_version(),
        available=available,
    )
    plan = plan.model_copy(update={"flops": _counted(plan, known)})
    if study.compute:
        _check_budgets(plan)
    return plan


def _counted(plan: Plan, known: Plan | None) -> dict[str, dict[str, float]]:
    """FLOPs per training sample of every entry and size, each model counted once."""
    from scisci.tasks.costs import flops_per_sample

    study, found = plan.study, {} if known is None else _known_flops(plan, known)
    counted: dict[str, dict[str, float]] = {label: {} for label in study.architectures}
    for label, entry in study.architectures.items():
        for size in entry.sizes:
            model = _model(study, label, size)
            if model not in found:
                found[model] = flops_per_sample(plan.bare_spec(label, size))
            counted[label][size] = found[model]
    return counted


def _known_flops(plan: Plan, known: Plan) -> dict[str, float]:
    """Model → FLOPs that an earlier plan has, if they are still those."""
    decides = [(one.fingerprint, one.code_version, one.study.task) for one in (plan, known)]
    if decides[0] != decides[1]:
        return {}
    entries = known.flops.items()
    return {_model(known.study, label, size): flops for label, sizes in entries for size, flops in sizes.items()}


def _model(study: Study, label: str, size: str) -> str:
    """What an entry's FLOPs depend on."""
    entry = study.architectures[label]
    return json.dumps([study.architecture(label), size, entry.overrides, entry.treatment], sort_keys=True)


def _check_budgets(plan: Plan) -> None:
    """`UserError` for a budget that is no training, and for two that are the same one."""
    study = plan.study
    for label, entry in study.architectures.items():
        if not study.trained(label):
            raise UserError(
                f"{study.architecture(label)} is a baseline, which no compute is given to; remove {label!r}"
            )
        for size in entry.sizes:
            trainings = plan._trainings(label, size)
            budgets = [budget for budget in study.compute for _ in study.amounts or (0,)]
            for budget, (steps, _) in zip(budgets, trainings, strict=True):
                if steps < LEAST_STEPS:
                    least = plan.flops[label][size] * study.optimization.batch_size * LEAST_STEPS
                    raise UserError(
                        f"compute {budget:.3g} gives {label} {size} {steps} steps, which is no training; leave the "
                        f"size out or give it {least:.2g} or more"
                    )
            if len(set(trainings)) < len(trainings):
                raise UserError(
                    f"two budgets of compute give {label} {size} the same training; take them further apart"
                )


def _build(study: Study, label: str, inputs: Inputs, task: type[Any]) -> None:
    """Build the models of an entry once, so that what is wrong with it is said before anything runs."""
    from scisci.models import registry
    from scisci.tasks.baselines import registry as baselines

    name, entry = study.architecture(label), study.architectures[label]
    if name in baselines.names():
        if study.learning_rates:
            raise UserError(
                f"{name} is a baseline, which is fitted and not trained at learning_rates; remove {label!r}"
            )
        trained = {"learning_rate": None, "treatment": "none", "parametrization": "standard"}
        if given := [key for key, untold in trained.items() if getattr(entry, key) != untold]:
            raise UserError(f"{name} is a baseline, which is fitted and not trained; remove {given[0]} of {label!r}")
        for size in entry.sizes:
            baselines.build(name, task.domain, study.task, size, entry.overrides)
    else:
        if ":" not in name and name not in registry.architectures():
            raise unknown_name("architecture", name, [*registry.architectures(), *baselines.names()])
        chosen: dict[str, Any] = {"symmetry_treatment": entry.treatment, "parametrization": entry.parametrization}
        if study.optimization.compiled:
            chosen["compiled"] = True
        made = task(name, entry.sizes[0], entry.overrides, **chosen, **study.task)
        for size in entry.sizes:
            made.backbone(inputs, 1.0, registry.options(name, size, entry.overrides))
        if entry.learning_rate is None and not study.learning_rates:
            raise UserError(
                f"the entry {label!r} lacks the learning_rate that {name} is trained with; add it, or have "
                "'scisci tune' choose it"
            )
    if (entry.overrides or study.variant(label)) and label in (*registry.architectures(), *baselines.names()):
        raise UserError(
            f"the entry {label!r} makes {name} another model, so tables must not call it {label!r}; "
            f"give it a label of its own and the key 'architecture: {name}'"
        )
