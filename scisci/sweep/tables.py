"""Plans as tables on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from scisci.sweep.plan import Plan


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
