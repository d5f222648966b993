"""Plans over the regression of `regression.py`, and what came of carrying them out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scisci.contracts.run import RunResult
from scisci.sweep.attempt import Outcome
from scisci.sweep.drive import State, sweep
from scisci.sweep.engine import Engine
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records
from scisci.sweep.study import Study

EXECUTE = f"{__package__}.regression:execute"
IMPORT_ROOT = Path(__file__).parents[len(str(__package__).split("."))]
DRIVER = f"""
import json
import sys
from pathlib import Path
from scisci.contracts.errors import UserError
from scisci.sweep.cli import resumable
from scisci.sweep.drive import Shard, sweep
from scisci.sweep.plan import Plan
from scisci.sweep.progress import make_listener
folder, engine, *rest = sys.argv[1:]
options = {{"workers": 2, "execute": {EXECUTE!r}}} | (json.loads(rest[0]) if rest else {{}})
if "shard" in options:
    options["shard"] = Shard(*options["shard"])
try:
    with resumable(Path(folder)), make_listener() as listener:
        sweep(Plan.read(folder), folder, listener, engine=engine, **options)
except UserError as error:
    print(error)
    sys.exit(2)
"""


class Log:
    """A listener that keeps the outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.estimates: list[float | None] = []

    def finished(self, outcome: Outcome, state: State, engine: Engine) -> None:
        self.outcomes.append(outcome)
        self.estimates.append(state.seconds_left(engine))

    def tick(self, state: State, engine: Engine) -> None:
        pass


def study(**changes: Any) -> dict[str, Any]:
    """A study file's content, with `changes` to its top level."""
    return {
        "study": "regressions",
        "dataset": "line",
        "architectures": {"linear": {"sizes": ["2", "4"], "learning_rate": 0.1}},
        "data": [16, 32],
        "seeds": [0, 1],
        "optimization": {"steps": 20},
        "evaluation": {"splits": ["test"]},
    } | changes


def plan(**changes: Any) -> Plan:
    """A plan of regressions, whose FLOPs per sample are the number that a size has for a name, times 1,000."""
    made = Study.model_validate(study(**changes))
    flops = {
        label: {size: 1000.0 * int("".join(filter(str.isdigit, size)) or 1) for size in entry.sizes}
        for label, entry in made.architectures.items()
    }
    bound = {"domain": "atoms", "fingerprint": "f" * 64, "code_version": "1", "available": 2**20}
    return Plan(study=made, flops=flops, **bound)


def faulty(**overrides: Any) -> dict[str, Any]:
    """An entry of one model whose runs do what `overrides` say."""
    return {"architecture": "linear", "sizes": ["2"], "learning_rate": 0.1, "overrides": overrides}


def carry_out(plan: Plan, folder: Path, **options: Any) -> Log:
    """Do a sweep in this process; returns what it did."""
    log = Log()
    options = {"engine": "inline", "execute": EXECUTE} | options
    sweep(plan, folder, log, **options)
    return log


def results(plan: Plan, folder: Path) -> dict[str, RunResult | None]:
    records = Records(folder)
    return {spec.run: records.result(spec.run) for _, spec in plan.specs()}


def timeless(result: RunResult | None) -> dict[str, Any] | None:
    """A result without what differs from one time to the next."""
    return result and result.model_dump(exclude={"seconds"})


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Poll until `condition` is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def running(journal: Path) -> list[int]:
    """Processes that started a training and did not end it."""
    ended = {path.name.split(".")[0] for path in journal.glob("[!.]*.end.*")}
    return [int(p.read_text()) for p in journal.glob("[!.]*.start.*") if p.name.split(".")[0] not in ended]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
