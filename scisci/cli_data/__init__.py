"""`scisci data`: list, describe, verify, download, import, generate and split data sets; a file per sub-command."""

from __future__ import annotations

import argparse

from scisci.cli_data import describe, downloading, generating, importing, severity, splitting


def parser() -> argparse.ArgumentParser:
    """The options of `scisci data`."""
    top = argparse.ArgumentParser(
        prog="scisci data", description="Data sets: list, describe, verify, download, import, generate, split."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (describe, downloading, importing, generating, splitting):
        part.add(commands)
    return top


def main(argv: list[str]) -> None:
    """Run `scisci data`."""
    args = parser().parse_args(argv)
    args.action(args)
