"""`scisci data`: all that is done with data sets before and after training; a file per sub-command."""

from __future__ import annotations

import argparse

from scisci.cli_data import combine, describe, downloading, generating, importing, severity, splitting


def parser() -> argparse.ArgumentParser:
    """The options of `scisci data`."""
    top = argparse.ArgumentParser(
        prog="scisci data",
        description="Data sets: list, describe, verify, download, import, generate, split, combine; errors by"
        " severity.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (describe, downloading, importing, generating, splitting, combine, severity):
        part.add(commands)
    return top


def main(argv: list[str]) -> None:
    """Run `scisci data`."""
    args = parser().parse_args(argv)
    args.action(args)
