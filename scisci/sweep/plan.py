"""From a study to its runs: a plan holds all that decides them, and yields their specs one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

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


@dataclass(frozen=True)
class Cell:
    """The runs of one study entry and size: they differ in data, learning rate and seed only, so they cost the same."""

    label: str
    size: str

    def __str__(self) -> str:
        return f"{self.label} {self.size}"


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

    @property
    def cells(self) -> list[Cell]:
        return [Cell(label, size) for label, entry in self.study.architectures.items() for size in entry.sizes]

    @property
    def runs_per_cell(self) -> int:
        return len(self.study.data) * max(1, len(self.study.learning_rates)) * len(self.study.seeds)

    def __len__(self) -> int:
        return len(self.cells) * self.runs_per_cell

    def spec(self, cell: Cell, number: int) -> RunSpec:
        """Run `number` of a cell: data amounts in the order of the study file, learning rates and seeds within each."""
        study, entry = self.study, self.study.architectures[cell.label]
        rates = study.learning_rates or (None,)
        number, seed = divmod(number, len(study.seeds))
        amount, rate = divmod(number, len(rates))
        return RunSpec(
            study=study.study,
            dataset=study.dataset,
            fingerprint=self.fingerprint,
            architecture=study.architecture(cell.label),
            variant=study.variant(cell.label),
            size=cell.size,
            overrides=entry.overrides,
            treatment=entry.treatment,
            task=study.task,
            data=study.data[amount],
            seed=study.seeds[seed],
            optimization=study.recipe(cell.label, cell.size, study.data[amount], rates[rate]),
            evaluation=study.evaluation,
            code_version=self.code_version,
            loggers=study.loggers,
        )

    def needs(self, cell: Cell) -> Needs:
        """What each run of a cell occupies."""
        return self.study.needs(cell.label, cell.size)

    def specs(self) -> Iterator[tuple[Cell, RunSpec]]:
        """All runs with their cells, in the order of the study file."""
        for cell in self.cells:
            for number in range(self.runs_per_cell):
                yield cell, self.spec(cell, number)

    def write(self, folder: Path) -> None:
        """Put the plan into a sweep's folder; a folder that belongs to another study is a `UserError`."""
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


def make_plan(study: Study) -> Plan:
    """Bind a study to its data set and to this code, and refuse what could not run.

    Opens the data set as training does and builds every model of the study once. Raises `UserError` for an
    unknown data set, architecture, size, option or split, for options that no model can be built with, for a
    data set without what training needs, and for more training samples than there are.
    """
    from scisci.data.module import StoreDataModule
    from scisci.tasks.domains import task_for
    from scisci.tasks.loggers import parse as parse_loggers
    from scisci.tasks.version import code_version

    data = StoreDataModule(study.dataset, test_splits=list(study.evaluation.splits))
    store = data.store
    available = len(store.split("train"))
    if max(study.data) > available:
        raise UserError(
            f"the study asks for {max(study.data)} training samples but {study.dataset} has {available}; "
            "lower the data amounts"
        )
    task = task_for(store.domain)
    data.check(task.domain)
    of_some = {"energy_weight", "force_weight", "stress_weight", "compiled"} & study.optimization.model_fields_set
    if foreign := sorted(of_some - set(signature(task.__init__).parameters)):
        raise UserError(f"the study's {foreign[0]} means nothing for data of the domain {store.domain!r}; remove it")
    known = set(signature(task.__init__).parameters) - {"self", *_OWN_KEYS}
    if strange := sorted(set(study.task) - known):
        raise unknown_name(f"option in task of data of the domain {store.domain!r}", strange[0], known)
    parse_loggers(study.loggers)
    inputs = task.inputs(store)
    for label in study.architectures:
        _build(study, label, inputs, task)
    return Plan(study=study, domain=store.domain, fingerprint=store.fingerprint, code_version=code_version())


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
