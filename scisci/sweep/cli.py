"""`scisci sweep`: plan a study, do its runs, see how they stand, collect the results table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.contracts.run import Status
from scisci.sweep import design_cli, status_cli
from scisci.sweep.option_types import count, shard, span, whole

STATUSES: tuple[Status, ...] = ("failed", "diverged", "out_of_memory")


def parser() -> argparse.ArgumentParser:
    """The command line of `scisci sweep`."""
    top = argparse.ArgumentParser(
        prog="scisci sweep", description="Train every architecture, size and data amount of a study."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="do all runs of a study that are not recorded yet")
    run.add_argument("study", type=Path, help="study file (YAML), or the folder of a sweep, to go on by its own plan")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the sweep")
    add_engine(run)
    run.add_argument(
        "--order",
        choices=("longest", "smallest"),
        default="longest",
        help="longest runs first ends soonest (default); smallest first gives an early look at the law",
    )
    run.add_argument(
        "--budget", type=span, metavar="TIME", help="begin no run that would end later than this, e.g. 90m or 1h30m"
    )
    run.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="only part I of N (counted from 1), e.g. in a job array; inline by default",
    )
    run.set_defaults(act=_run)

    design_cli.add(commands)
    status_cli.add(commands)

    collect = commands.add_parser("collect", help="write DIR/results.parquet from the recorded runs")
    collect.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep")
    collect.add_argument("--all", action="store_true", help="also recorded runs that the plan no longer names")
    collect.set_defaults(act=_collect)
    return top


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Options on where and how runs are done, for every command that does some."""
    parser.add_argument(
        "--engine",
        choices=("ray", "inline"),
        help="ray: worker processes (default); inline: this process",
    )
    parser.add_argument("--workers", type=count, metavar="N", help="worker processes (default: as there is room)")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="join a running Ray cluster, 'auto' for that of this machine (default: $RAY_ADDRESS, else start one)",
    )
    parser.add_argument(
        "--retries",
        type=whole,
        default=1,
        metavar="N",
        help="do a run again up to N times when its process or machine is lost (1); errors are not tried again",
    )
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=(*STATUSES, "damaged"),
        help="do runs again that were recorded with this status, or 'damaged': whose record cannot be read",
    )


def engine_options(arguments: argparse.Namespace, default: str = "ray") -> dict[str, Any]:
    """What the options of `add_engine` say, as `sweep` takes it."""
    engine: str = arguments.engine or default
    if engine == "inline" and (arguments.workers or arguments.address):
        option = "--workers" if arguments.workers else "--address"
        raise UserError(f"the inline engine works in this process alone; add '--engine ray' to use {option}")
    return {
        "engine": engine,
        "workers": arguments.workers,
        "address": arguments.address or os.environ.get("RAY_ADDRESS"),
        "retry": arguments.retry,
        "retries": arguments.retries,
    }


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Answer an interruption of the runs in `folder`, and a SIGTERM, with how to go on."""
    told = False

    def end(*_: object) -> None:
        nonlocal told
        told = True
        sys.exit()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not told:
            raise
        event, number = ("told to end", signal.SIGTERM) if told else ("interrupted", signal.SIGINT)
        print(f"{event}; what is recorded in {folder} stays, and the same command goes on from there")
        raise SystemExit(128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: list[str]) -> None:
    """Entry point of `scisci sweep`."""
    arguments = parser().parse_args(argv)
    arguments.act(arguments)


def _run(arguments: argparse.Namespace) -> None:
    from scisci.sweep.drive import sweep
    from scisci.sweep.progress import make_listener
    from scisci.sweep.start import started

    options = engine_options(arguments, "inline" if arguments.shard else "ray")
    if (arguments.out is None) != arguments.study.is_dir():
        raise UserError("give the folder of a sweep alone, or a study file and --out DIR")
    out = arguments.out or arguments.study
    where = {name: options[name] for name in ("engine", "address", "workers")}
    with (
        resumable(out),
        started(arguments.study, arguments.out, part=bool(arguments.shard), **where) as (plan, team),
        make_listener() as listener,
    ):
        state = sweep(
            plan,
            out,
            listener,
            team=team,
            order=arguments.order,
            budget=arguments.budget,
            shard=arguments.shard,
            **options,
        )
    outcome = ", ".join(f"{count} {status}" for status, count in state.statuses.most_common()) or "none to do"
    print(f"{state.total} runs of {plan.study.study}: {outcome}")
    if left := state.left.total():
        print(f"{left} runs left out: they would not end in time; the same command goes on with them")
    if state.done and not state.statuses["ok"]:
        raise UserError(f"no run ended well; see 'scisci sweep status {out}' for the reasons")
    if state.done > state.statuses["ok"]:
        print(f"see 'scisci sweep status {out}' for the reasons")
    if arguments.shard:
        print(f"when all shards have ended: scisci sweep collect {out}")
    else:
        _write_table(out, everything=False)


def _collect(arguments: argparse.Namespace) -> None:
    _write_table(arguments.folder, arguments.all)


def _write_table(folder: Path, everything: bool) -> None:
    from scisci.sweep.collect import collect

    collected = collect(folder, everything)
    print(f"{collected.path}: {collected.rows} rows of {collected.runs} runs")
    if collected.earlier:
        print(f"{collected.earlier} of them were recorded by earlier versions of the code, as the sweep was extended")
    for record in collected.damaged[:3]:
        print(f"left out {record}")
    if len(collected.damaged) > 3:
        print(f"and {len(collected.damaged) - 3} more; see 'scisci sweep status {folder}'")
    if collected.missing:
        print(f"{collected.missing} planned runs are not done; 'scisci sweep run' goes on with them")
    if collected.unplanned:
        print(f"left out {collected.unplanned} recorded runs that the plan does not name; --all takes them in")
