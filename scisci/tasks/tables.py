"""What `test` and `evaluate` print: the errors of every split with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping

from scisci.contracts.metrics import metric
from scisci.contracts.run import MetricValue

MOST_COLUMNS = 5


def show_errors(results: Mapping[str, Mapping[str, MetricValue]], names: list[str]) -> None:
    """Print the metrics `names` of every split, error ± standard error over samples: a row per split, or per metric."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def cell(split: str, name: str) -> str:
        found = results[split].get(name)
        return "" if found is None else f"{found.value:.4g} ± {found.se or 0:.1g}"

    # A unit in brackets would be taken for a style.
    titles = [escape(metric(name).title) for name in names]
    table = Table(title="error ± standard error over samples")
    if len(names) <= MOST_COLUMNS:
        for heading in ("split", *titles):
            table.add_column(heading, justify="left" if heading == "split" else "right")
        for split in results:
            table.add_row(split, *(cell(split, name) for name in names))
    else:
        for heading in ("", *results):
            table.add_column(heading, justify="right" if heading else "left")
        for name, title in zip(names, titles, strict=True):
            table.add_row(title, *(cell(split, name) for split in results))
    Console().print(table)
