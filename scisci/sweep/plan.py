"""Plans: all that decides the runs of a study, whose specs they yield one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError
from scisci.contracts.files import write_text
from scisci.contracts.run import OptimizationSpec, RunSpec
from scisci.sweep.resources import Needs
from scisci.sweep.study import Study

PLAN_FILE = "plan.json"


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
        for steps, data in self.trainings(label, size):
            grouped.setdefault(steps, []).append(data)
        return [Cell(label, size, steps, tuple(data)) for steps, data in grouped.items()]

    def trainings(self, label: str, size: str) -> list[tuple[int, int]]:
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
