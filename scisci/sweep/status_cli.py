"""`scisci sweep status`: how many runs stand where, and what went wrong."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scisci.sweep.standing import Standing

COLUMNS = ("ok", "running", "waiting", "diverged", "failed", "out_of_memory", "damaged")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `scisci sweep`."""
    status = commands.add_parser("status", help="how many runs are done, and why others failed")
    status.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep")
    status.set_defaults(act=_status)


def _status(arguments: argparse.Namespace) -> None:
    from scisci.sweep.standing import standing

    print_standing(standing(arguments.folder))


def print_standing(standing: Standing) -> None:
    """Print how many runs stand where, then the reasons of those that ended badly."""
    from rich.table import Table

    from scisci.sweep.progress import duration
    from scisci.sweep.tables import print_table

    totals = standing.totals
    shown = [status for status in COLUMNS if totals[status]]
    by_steps = any(cell.steps is not None for cell in standing.cells)
    table = Table("entry", "size", box=None, pad_edge=False)
    for status in (*(["steps"] if by_steps else []), *shown):
        table.add_column(status, justify="right")
    for cell, counts in standing.cells.items():
        steps = [str(cell.steps)] if by_steps else []
        table.add_row(cell.label, cell.size, *steps, *(str(counts[status]) for status in shown))
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
