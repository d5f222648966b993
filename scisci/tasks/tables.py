"""What `test` and `evaluate` print: the errors of every split with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping

from scisci.contracts.metrics import metric
from scisci.contracts.run import MetricValue


def show_errors(results: Mapping[str, Mapping[str, MetricValue]], names: list[str]) -> None:
    """Print a row per split with the metrics `names`, error ± standard error over samples."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="error ± standard error over samples")
    table.add_column("split")
    for name in names:
        table.add_column(metric(name).title, justify="right")
    for split, metrics in results.items():
        table.add_row(split, *(f"{metrics[n].value:.4g} ± {metrics[n].se or 0:.1g}" for n in names))
    Console().print(table)
