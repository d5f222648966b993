"""Choosing learning rates: every entry of a study has the same trials, and ID validation decides."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.files import atomic_path, write_text
from scisci.contracts.metrics import Metric
from scisci.contracts.results import read_results
from scisci.sweep.collect import collect
from scisci.sweep.drive import Listener, sweep
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.study import Study, checked

STUDY_FILE, TRIALS_FILE = "study.yaml", "trials.parquet"
TRIALS, UNTRAINED = "trials", "untrained"
UNTRAINED_RATE = 1e-12  # one step of AdamW changes no weight by more: lost in the rounding of single precision


@dataclass(frozen=True)
class Grid:
    """Learning rates in one ratio, to three digits, from `lowest` to `highest` and some beyond either end."""

    lowest: float = 0.0005
    highest: float = 0.03
    trials: int = 7
    below: int = 0
    above: int = 0

    @property
    def rates(self) -> tuple[float, ...]:
        """All rates, ascending."""
        ratio = (self.highest / self.lowest) ** (1 / (self.trials - 1))
        return tuple(float(f"{self.lowest * ratio**k:.3g}") for k in range(-self.below, self.trials + self.above))

    def widened(self, best: Collection[float]) -> Grid:
        """One rate more beyond each end that is among the `best` rates."""
        return replace(self, below=self.below + (self.rates[0] in best), above=self.above + (self.rates[-1] in best))


@dataclass(frozen=True, eq=False)
class Trials:
    """What the trials of one entry and size came to.

    `values` [rate, seed] and `untrained` [seed] are of `metric` on ID validation; a run that diverged has an infinite
    loss, one that failed NaN. A rate counts only if all its runs ended well.
    """

    cell: Cell
    metric: Metric
    rates: tuple[float, ...]
    values: np.ndarray
    untrained: np.ndarray

    @cached_property
    def means(self) -> np.ndarray:
        """Mean over seeds [rate], not finite where the rate is ruled out."""
        return self.values.mean(axis=1)

    @property
    def ranked(self) -> list[int]:
        """Indices of the rates that count, best first; of equals the lowest rate."""
        order = np.argsort(_sign(self.metric) * self.means, kind="stable")
        return [int(i) for i in order if np.isfinite(self.means[i])]

    @property
    def rate(self) -> float:
        """The rate with the best mean over seeds."""
        return self.rates[self.ranked[0]]

    @property
    def at_edge(self) -> bool:
        """Whether no rate was tried on one side of the best."""
        return self.rate in (self.rates[0], self.rates[-1])

    @property
    def sensitivity(self) -> float:
        """Learning-rate sensitivity, in the unit of the metric; NaN if a run failed for another reason than its rate.

        The mean over rates of min(loss, loss of the untrained model) - lowest loss: Wortsman et al., "Small-scale
        proxies for large-scale Transformer training instabilities" (2023), section 2.2. Losses are means over seeds.
        """
        sign = _sign(self.metric)
        losses = np.minimum(sign * self.values, sign * self.untrained).mean(axis=1)
        return float(losses.mean() - losses.min())

    def sentence(self, study: Study) -> str:
        """How the rate was chosen, with the budget; `study` is that of the trials."""

        def told(index: int) -> str:
            return f"{' '.join(filter(None, (f'{self.means[index]:.4g}', self.metric.unit)))} at {self.rates[index]:g}"

        best, *others = self.ranked
        next_best = f"next {told(others[0])}" if others else "no other ended well"
        data, seeds = study.amounts[0], ", ".join(map(str, study.seeds))
        ruled_out = len(self.rates) - len(self.ranked)
        return (
            f"{self.metric.direction.replace('er', 'est')} {self.metric.name} on val of {len(self.rates)} rates from "
            f"{self.rates[0]:g} to {self.rates[-1]:g} ({told(best)}, {next_best}), "
            f"{study.recipe(self.cell.label, self.cell.size, data).steps} steps, {data} samples, "
            f"seed{'s' if len(study.seeds) > 1 else ''} {seeds}"
            + (f"; {ruled_out} ruled out" if ruled_out else "")
            + ("; at the edge of the grid" if self.at_edge else "")
        )


def trial_study(
    study: Study,
    networks: Iterable[str],
    rates: tuple[float, ...],
    *,
    data: int | None = None,
    steps: int | None = None,
    seeds: tuple[int, ...] = (0,),
    first_size: bool = False,
) -> Study:
    """The study that trains the entries named `networks` at every rate, to be judged on ID validation alone.

    On the largest amount of data and by as many steps as the study has, unless `data` and `steps` are given; the
    entries' own numbers of steps then stay in proportion. `UserError` where budgets of compute say how long models are
    trained, unless `steps` do, and `data` where the study has no amounts of its own.
    """
    recipe = study.optimization
    if study.compute and not (steps and (data or study.amounts)):
        raise UserError(
            f"the study {study.study!r} trains by compute, by other steps for every model; say how long a trial is"
            " with --steps" + ("" if study.amounts else " and --data")
        )
    data = data or max(study.amounts)
    entries = {}
    for label in networks:
        entry = study.architectures[label]
        sizes, resources = entry.sizes[:1] if first_size else entry.sizes, entry.resources
        entries[label] = entry.model_copy(
            update={
                "learning_rate": None,
                "learning_rate_choice": "given",
                "sizes": sizes,
                "steps": _in_proportion(entry.steps, steps, recipe.steps),
                "resources": {size: resources[size] for size in sizes if size in resources}
                if isinstance(resources, dict)
                else resources,
            }
        )
    evaluation = {"splits": ("val",), "symmetry_samples": 0, "predictions": False}
    changes = {
        "study": f"{study.study}-tune",
        "architectures": entries,
        "data": (data,),
        "compute": (),
        "seeds": seeds,
        "learning_rates": rates,
        "optimization": recipe.model_copy(update={"steps": steps, "epochs": None} if steps else {}),
        "evaluation": study.evaluation.model_copy(update=evaluation),
    }
    return checked(study.model_copy(update=changes).model_dump(exclude_unset=True), "the trials")


def _in_proportion(own: int | None, steps: int | None, recipe: int | None) -> int | None:
    """Steps of an entry where those of the recipe become `steps`."""
    return max(1, round(own * steps / recipe)) if own and steps and recipe else own


def tune(
    plan: Plan, grid: Grid, folder: Path, listener: Listener, metric: Metric, *, widen: int = 2, **options: Any
) -> tuple[Plan, list[Trials]]:
    """Train every entry and size of `plan`, a plan of `trial_study`, at every rate of a grid.

    While the best rate of any is at an end of the grid, up to `widen` times, a rate beyond that end is added for all:
    their budgets stay equal. Leaves two sweeps in `folder`, `trials` and `untrained` (the models as they are made),
    and the results of both in `trials.parquet`. `options` are those of `sweep`. Returns the plan as it was carried
    out. Raises `UserError` for a model that cannot be measured untrained, or that no rate trained.
    """
    sign = _sign(metric)
    before = _with(plan, study=f"{plan.study.study}-{UNTRAINED}", learning_rates=(UNTRAINED_RATE,), steps=1)
    sweep(before, folder / UNTRAINED, listener, **options)
    untrained = _table(folder / UNTRAINED)
    _check(untrained, metric)
    while True:
        plan = _with(plan, learning_rates=grid.rates)
        sweep(plan, folder / TRIALS, listener, **options)
        table = pa.concat_tables([_table(folder / TRIALS), untrained])
        with atomic_path(folder / TRIALS_FILE) as temporary:
            pq.write_table(table, temporary)
        values = _values(table, metric.name, sign)
        trials = [
            Trials(cell, metric, grid.rates, _of(plan, cell, values), _of(before, cell, values)[0])
            for cell in plan.cells
        ]
        if lost := [str(one.cell) for one in trials if not one.ranked]:
            raise UserError(
                f"no learning rate trained {lost[0]}; see 'scisci sweep status {folder / TRIALS}' for the reasons"
            )
        wider = grid.widened({one.rate for one in trials})
        if wider == grid or not widen:
            return plan, trials
        grid, widen = wider, widen - 1


def chosen_study(study: Study, plan: Plan, trials: Iterable[Trials]) -> Study:
    """The study with the rates that its trials chose, and how; an entry tuned at one size has that rate at all."""
    content = study.model_dump(mode="json", exclude_unset=True)
    content.pop("learning_rates", None)
    by_entry: dict[str, list[Trials]] = {}
    for one in trials:
        by_entry.setdefault(one.cell.label, []).append(one)
    for label, tuned in by_entry.items():
        entry, sizes = content["architectures"][label], study.architectures[label].sizes
        if len(tuned) == len(sizes) > 1:
            entry["learning_rate"] = {one.cell.size: one.rate for one in tuned}
            entry["learning_rate_choice"] = {one.cell.size: one.sentence(plan.study) for one in tuned}
        else:
            entry["learning_rate"] = tuned[0].rate
            origin = f"that of {sizes[0]}: " if len(sizes) > 1 else ""
            entry["learning_rate_choice"] = origin + tuned[0].sentence(plan.study)
    return checked(content, "the tuned study")


def write_study(study: Study, path: Path) -> None:
    """Write a study file that says what was said of the study, and no defaults."""
    content = study.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)
    write_text(path, f"# Learning rates chosen by 'scisci tune'; the trials are in {TRIALS_FILE}.\n{text}")


def _with(plan: Plan, steps: int | None = None, **changes: Any) -> Plan:
    """A plan with changes to its study, and with as many steps for all entries if these are given."""
    study = plan.study
    if steps is not None:
        changes["optimization"] = study.optimization.model_copy(update={"steps": steps, "epochs": None})
        entries = study.architectures.items()
        changes["architectures"] = {label: entry.model_copy(update={"steps": None}) for label, entry in entries}
    return plan.model_copy(update={"study": study.model_copy(update=changes)})


def _table(folder: Path) -> pa.Table:
    """The results table of a finished sweep."""
    collected = collect(folder)
    if collected.damaged:
        raise UserError(str(collected.damaged[0]))
    return read_results(collected.path)


def _check(untrained: pa.Table, metric: Metric) -> None:
    for row in untrained.to_pylist():
        if row["status"] != "ok":
            raise UserError(f"{row['architecture']} {row['size']} cannot be trained: {row['reason'] or row['status']}")
    measured = set(untrained["metric"].to_pylist())
    if metric.name not in measured:
        raise unknown_name("metric of these models", metric.name, measured)


def _values(table: pa.Table, metric: str, sign: int) -> dict[str, float]:
    """Run → value of the metric on ID validation; infinite loss where it diverged, NaN where it failed."""
    values = {}
    for row in table.select(["run", "status", "split", "metric", "value"]).to_pylist():
        if row["status"] != "ok":
            values[row["run"]] = sign * np.inf if row["status"] == "diverged" else np.nan
        elif (row["split"], row["metric"]) == ("val", metric):
            values[row["run"]] = row["value"]
    return values


def _of(plan: Plan, cell: Cell, values: dict[str, float]) -> np.ndarray:
    """Values of a cell's runs [rate, seed]."""
    runs = [values[plan.spec(cell, number).run] for number in range(plan.count(cell))]
    return np.array(runs).reshape(len(plan.study.learning_rates), len(plan.study.seeds))


def _sign(metric: Metric) -> int:
    """What makes a loss of the metric."""
    return 1 if metric.direction == "lower" else -1
