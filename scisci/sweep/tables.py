"""Plans and standings as tables on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from scisci.sweep.collect import Standing
from scisci.sweep.plan import Plan
from scisci.sweep.progress import duration

COLUMNS = ("ok", "running", "waiting", "diverged", "failed", "out_of_memory")


def print_table(table: Table) -> None:
    """Print a table; in a pipe or a file its rows stay whole lines."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def plan_table(plan: Plan) -> Table:
    """One row per model of a study: how it is made and trained; with parametrizations if any is not standard."""
    told = any(entry.parametrization != "standard" for entry in plan.study.architectures.values())
    columns = ("size", "learning rate", "steps", "runs")
    between = ("parametrization",) if told else ()
    table = Table("entry", "architecture", "treatment", *between, *columns, box=None, pad_edge=False)
    for cell in plan.cells:
        entry = plan.study.architectures[cell.label]
        own = dict.fromkeys(entry.rate(cell.size, data) for data in plan.study.data)
        rates = plan.study.learning_rates or own
        table.add_row(
            cell.label,
            plan.study.architecture(cell.label),
            entry.treatment,
            *((entry.parametrization,) if told else ()),
            cell.size,
            ", ".join("none" if rate is None else f"{rate:g}" for rate in rates),
            str(entry.steps or plan.study.optimization.steps),
            str(plan.runs_per_cell),
        )
    return table


def print_standing(standing: Standing) -> None:
    """Print how many runs stand where, then the reasons of those that ended badly."""
    totals = standing.totals
    shown = [status for status in COLUMNS if totals[status]]
    table = Table("entry", "size", box=None, pad_edge=False)
    for status in shown:
        table.add_column(status, justify="right")
    for cell, counts in standing.cells.items():
        table.add_row(cell.label, cell.size, *(str(counts[status]) for status in shown))
    print_table(table)
    done = totals.total() - totals["running"] - totals["waiting"]
    print(f"{standing.plan.study.study}: {done} of {totals.total()} runs done")
    if standing.work_left:
        print(f"about {duration(standing.work_left)} of work left on one worker")
    for trouble in standing.troubles:
        runs = "run" if trouble.count == 1 else "runs"
        print(f"{trouble.count} {runs} {trouble.status}: {trouble.reason}")
        for spec in trouble.examples:
            name = f"{spec.variant or spec.architecture} {spec.size} data {spec.data} seed {spec.seed}"
            if standing.plan.study.learning_rates:
                name += f" rate {spec.optimization.learning_rate:g}"
            print(f"  {name}: runs/{spec.run}")
    if standing.unplanned:
        print(f"{standing.unplanned} recorded runs are not in the plan")
