"""Plans and standings as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from scisci.sweep.collect import Standing
from scisci.sweep.plan import Plan
from scisci.sweep.progress import duration

COLUMNS = ("ok", "running", "waiting", "diverged", "failed", "out_of_memory")


def _console() -> Console:
    # in a pipe or a file, rows stay whole lines
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_table(table: Table) -> None:
    """Print a table without wrapping its rows where the output is not a terminal."""
    _console().print(table)


def plan_table(plan: Plan) -> Table:
    """One row per model of a study: how it is made and trained."""
    table = Table("entry", "architecture", "treatment", "size", "learning rate", "runs", box=None, pad_edge=False)
    for cell in plan.cells:
        entry = plan.study.architectures[cell.label]
        table.add_row(
            cell.label,
            plan.study.architecture(cell.label),
            entry.treatment,
            cell.size,
            f"{entry.rate(cell.size):g}",
            str(plan.runs_per_cell),
        )
    return table


def print_standing(standing: Standing) -> None:
    """Print how many runs stand where, then the reasons of those that ended badly."""
    console, totals = _console(), standing.totals
    shown = [status for status in COLUMNS if totals[status]]
    table = Table("entry", "size", box=None, pad_edge=False)
    for status in shown:
        table.add_column(status, justify="right")
    for cell, counts in standing.cells.items():
        table.add_row(cell.label, cell.size, *(str(counts[status]) for status in shown))
    console.print(table)
    done = totals.total() - totals["running"] - totals["waiting"]
    console.print(f"{standing.plan.study.study}: {done} of {totals.total()} runs done", highlight=False)
    if standing.work_left:
        console.print(f"about {duration(standing.work_left)} of work left on one worker", highlight=False)
    for trouble in standing.troubles:
        runs = "run" if trouble.count == 1 else "runs"
        console.print(f"{trouble.count} {runs} {trouble.status}: {trouble.reason}", markup=False, highlight=False)
        for spec in trouble.examples:
            name = f"{spec.variant or spec.architecture} {spec.size} data {spec.data} seed {spec.seed}"
            console.print(f"  {name}: runs/{spec.run}", markup=False, highlight=False)
    if standing.unplanned:
        console.print(f"{standing.unplanned} recorded runs are not in the plan", highlight=False)
