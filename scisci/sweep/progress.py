"""What a person sees while a sweep is at work: a bar on a terminal, a line per run elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from scisci.sweep.attempt import Outcome
from scisci.sweep.drive import State
from scisci.sweep.engine import Engine


def duration(seconds: float) -> str:
    """A time span as a person says it, to about two digits."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def describe(outcome: Outcome) -> str:
    """One line on a recorded run: what it was, how long it took, how it ended."""
    spec, result = outcome.job.spec, outcome.result
    assert result is not None
    rate = spec.optimization.learning_rate
    given = f"data {spec.data}  seed {spec.seed}" + ("" if rate is None else f"  rate {rate:g}")
    line = f"{outcome.job.cell}  {given}  {duration(result.seconds)}  {result.status}"
    if result.reason:
        line += f": {result.reason}"
    return line if outcome.state == "done" else f"{line} (done by another process)"


class Lines:
    """One line per finished run, for logs and pipes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def finished(self, outcome: Outcome, state: State, engine: Engine) -> None:
        left = state.seconds_left(engine)
        estimate = "" if left is None or state.done == state.total else f"  (about {duration(left)} left)"
        print(f"[{state.done}/{state.total}] {describe(outcome)}{estimate}", flush=True)

    def tick(self, state: State, engine: Engine) -> None:
        return None


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        text = "estimating" if ends is None else f"about {duration(max(ends - time.monotonic(), 0.0))} left"
        return Text(text, style="progress.remaining")


class Bar:
    """A bar over the predicted time, with what has passed and what is left; bad ends stay above it."""

    def __init__(self) -> None:
        # a fixed file: while a run is executed in this process, sys.stdout leads into the run's folder
        self._console = Console(file=sys.stdout)
        self._progress = Progress(
            TextColumn("{task.fields[done]}/{task.fields[runs]} runs"),
            BarColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("[dim]{task.fields[last]}"),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None, done=0, runs="?", ends=None, last="")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def finished(self, outcome: Outcome, state: State, engine: Engine) -> None:
        line = escape(describe(outcome))
        self._progress.update(self._task, last=line.partition(":")[0])
        if outcome.result is not None and outcome.result.status != "ok":
            self._console.print(line, highlight=False)
        self.tick(state, engine)

    def tick(self, state: State, engine: Engine) -> None:
        now, left = time.monotonic(), state.seconds_left(engine)
        passed = now - self._started
        self._progress.update(
            self._task,
            completed=passed if left is not None else 0,
            total=None if left is None else passed + left,
            done=state.done,
            runs=state.total,
            ends=None if left is None else now + left,
        )


def make_listener() -> Bar | Lines:
    """The bar where standard output is a terminal, lines where it is not."""
    return Bar() if sys.stdout.isatty() else Lines()
