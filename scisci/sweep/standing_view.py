"""Where a sweep stands, on the terminal: printed once, or kept up to date."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunSpec
from scisci.sweep.drivers import Driver
from scisci.sweep.plan import Cell
from scisci.sweep.progress import duration
from scisci.sweep.standing import Standing, Watcher
from scisci.sweep.tables import print_table

COLUMNS = ("ok", "running", "waiting", "diverged", "failed", "out_of_memory", "damaged")
SHOWN = 8
REST = 4.0  # seconds of rest per second of looking, at least
ENDS = {"done": "done", "budget": "out of time", "interrupted": "interrupted", "error": "stopped"}


def print_standing(standing: Standing) -> None:
    """Print how many runs stand where, who is at work, then the reasons of runs that ended badly."""
    for table in (_cells(standing), _at_work(standing, SHOWN), _drivers(standing, SHOWN)):
        if table.row_count:
            print_table(table)
            print()
    for line in (*_summary(standing), *_troubles(standing)):
        print(line)


def watch(folder: Path, seconds: float) -> None:
    """Show where a sweep stands every `seconds`, or less often where looking takes long, until no run is left.

    Ends with the last standing printed, also at Ctrl-C. Raises `UserError` where there is no terminal.
    """
    if not sys.stdout.isatty():
        raise UserError("--watch needs a terminal; leave it out to print once where the sweep stands")
    watcher = Watcher(folder)
    standing, console, took = watcher.look(), Console(), 0.0
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while standing.left:
            live.update(_screen(standing, console.height), refresh=True)
            time.sleep(max(seconds, REST * took))
            started = time.monotonic()
            standing = watcher.look()
            took = time.monotonic() - started
    print_standing(standing)


def _screen(standing: Standing, height: int) -> RenderableType:
    """As much of a standing as a terminal of `height` lines shows: what is under way goes before what is done."""
    few = min(SHOWN, max(1, (height - 12) // 4))
    parts: list[RenderableType] = [_lines(_summary(standing))]
    below = [table for table in (_at_work(standing, few), _drivers(standing, few)) if table.row_count]
    troubles = _troubles(standing, few, examples=False)
    taken = len(_summary(standing)) + sum(table.row_count + 2 for table in below) + len(troubles) + 1
    parts += ["", _cells(standing, max(1, height - taken - 3))]
    for table in below:
        parts += ["", table]
    return Group(*parts, "", _lines(troubles))


def _lines(lines: list[str]) -> Text:
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def _cells(standing: Standing, most: int | None = None) -> Table:
    """A row per cell; those under way before the others where not all fit."""
    cells = list(standing.cells.items())
    if most is not None and len(cells) > most:
        by_urgency = sorted(cells, key=lambda item: (not item[1]["running"], not item[1]["waiting"]))
        chosen = {cell for cell, _ in by_urgency[: most - 1]}
        cells = [(cell, counts) for cell, counts in cells if cell in chosen]
    totals = standing.totals
    shown = [status for status in COLUMNS if totals[status]]
    by_steps = any(cell.steps is not None for cell in standing.cells)
    table = _table("entry", "size")
    for name in (*(["steps"] if by_steps else []), *shown):
        table.add_column(name, justify="right")
    for cell, counts in cells:
        steps = [str(cell.steps)] if by_steps else []
        table.add_row(escape(cell.label), cell.size, *steps, *(str(counts[status]) for status in shown))
    if more := len(standing.cells) - len(cells):
        table.add_row(f"and {more} more", *(["…"] * (len(table.columns) - 1)))
    return table


def _at_work(standing: Standing, most: int) -> Table:
    """The runs at work, those first that have been for longest."""
    table = _table("at work", "process", "for")
    for one in standing.at_work[:most]:
        expected = f" of about {duration(one.expected)}" if one.expected else ""
        process = f"{one.holder.host}:{one.holder.pid}"
        table.add_row(escape(_name(standing, one.cell, one.spec)), process, duration(one.elapsed) + expected)
    if len(standing.at_work) > most:
        table.add_row(f"and {len(standing.at_work) - most} more")
    return table


def _drivers(standing: Standing, most: int) -> Table:
    """The drivers, those at work first."""
    table = _table("driver", "engine", "begun", "state")
    now = time.time()
    for driver in standing.drivers[:most]:
        if driver.start is None:
            table.add_row(escape(driver.path.name), "", "", "at work" if driver.at_work else "its record is lost")
            continue
        start = driver.start
        part = f", part {start.shard}" if start.shard else ""
        begun = f"{duration(max(0.0, now - start.at))} ago"
        table.add_row(f"{start.host}:{start.pid}", start.engine + part, begun, escape(_end(driver)))
    if rest := standing.drivers[most:]:
        kinds = Counter(_kind(driver) for driver in rest)
        table.add_row("and earlier", "", "", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return table


def _kind(driver: Driver) -> str:
    if driver.at_work:
        return "at work"
    return ENDS[driver.end.kind] if driver.end else "killed"


def _end(driver: Driver) -> str:
    if driver.end is None or driver.start is None:
        return _kind(driver)
    after = f"{_kind(driver)} after {duration(driver.end.at - driver.start.at)}"
    return f"{after}: {driver.end.reason}" if driver.end.reason else after


def _summary(standing: Standing) -> list[str]:
    totals, at_work = standing.totals, len(standing.at_work)
    lines = [f"{standing.plan.study.study}: {totals.total() - standing.left} of {totals.total()} runs done"]
    drivers = sum(driver.at_work for driver in standing.drivers)
    if standing.left and not drivers and not at_work:
        lines.append("nobody is at work; 'scisci sweep run' goes on")
    if standing.seconds_left is not None:
        workers = "1 worker" if at_work == 1 else f"{at_work} workers"
        lines.append(f"about {duration(standing.seconds_left)} left with {workers} at work")
    elif standing.work_left:
        lines.append(f"about {duration(standing.work_left)} of work left on one worker")
    if standing.unplanned:
        lines.append(f"{standing.unplanned} recorded runs are not in the plan")
    return lines


def _troubles(standing: Standing, most: int | None = None, examples: bool = True) -> list[str]:
    """What went wrong, how often, and which runs to look at."""
    lines = []
    for trouble in standing.troubles[:most]:
        runs = "run" if trouble.count == 1 else "runs"
        lines.append(f"{trouble.count} {runs} {trouble.status}: {trouble.reason}")
        if examples:
            lines += [f"  {_name(standing, cell, spec)}: runs/{spec.run}" for cell, spec in trouble.examples]
    for note, count in standing.notes.most_common(most or SHOWN):
        lines.append(f"{count} {'run' if count == 1 else 'runs'} noted: {note}")
    if standing.totals["damaged"]:
        lines.append("'scisci sweep run' does damaged runs again with '--retry damaged'")
    return lines


def _name(standing: Standing, cell: Cell, spec: RunSpec) -> str:
    name = f"{cell} data {spec.data} seed {spec.seed}"
    if standing.plan.study.learning_rates:
        name += f" rate {spec.optimization.learning_rate:g}"
    return name
