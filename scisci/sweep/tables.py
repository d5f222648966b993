"""Tables on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print a table; in a pipe or a file its rows stay whole lines."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)
