"""`scisci sweep status`: how many runs stand where, who is at work, and what went wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

WATCH_SECONDS = 2.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `scisci sweep`."""
    status = commands.add_parser("status", help="how many runs are done, who is at work, and why others failed")
    status.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep")
    status.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look again every so often (default {WATCH_SECONDS:g}) until no run is left; Ctrl-C ends it",
    )
    status.set_defaults(act=_status)


def _status(arguments: argparse.Namespace) -> None:
    from scisci.sweep.standing import standing
    from scisci.sweep.standing_view import print_standing, watch

    if arguments.watch is None:
        print_standing(standing(arguments.folder))
    else:
        watch(arguments.folder, arguments.watch)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds (DIR goes before --watch)")
    return seconds
