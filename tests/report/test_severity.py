from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from scisci.contracts.errors import UserError
from scisci.report.severity import choose_metric, severity_curve, severity_rows


def table(**changes: Any) -> pd.DataFrame:
    """Two bins of `test` and one of `ood_force_norm`, for one model."""
    columns = {
        "model": "m",
        "shift": "force_norm",
        "unit": "eV/Å",
        "split": ["test", "test", "ood_force_norm"],
        "severity": [1.0, 2.0, 4.0],
        "severity_max": [1.5, 2.5, 5.0],
        "metric": "force_mae",
        "value": [10.0, 20.0, 40.0],
        "se": [0.1, 0.2, 0.4],
        "se_groups": [1.0, 2.0, None],
        "n": [100, 100, 11],
        "groups": [5, 2, 1],
    }
    return pd.DataFrame({**columns, **changes})


def test_intervals_are_students_over_groups_and_over_samples_where_there_is_one() -> None:
    """Two-sided 95 % points of Student's t: 2.776 (4 degrees of freedom), 12.706 (1), 2.228 (10)."""
    rows = severity_rows(table(), "force_mae")
    assert (rows.high - rows.value).tolist() == pytest.approx([2.776, 2 * 12.706, 0.4 * 2.228], rel=1e-3)
    assert rows.low.tolist() == pytest.approx([10 - 2.776, 0.2, 40 - 0.4 * 2.228], rel=1e-3)


def test_splits_are_told_apart_and_the_line_is_where_those_in_distribution_end() -> None:
    rows = severity_rows(table(), "force_mae")
    assert rows["where"].tolist() == ["in distribution"] * 2 + ["out of distribution"]
    assert rows.end.tolist() == [2.5] * 3
    assert set(rows.panel) == {"force norm [eV/Å]"}


@pytest.mark.parametrize(("name", "scale"), [("force_mae", "log"), ("force_cosine", None)])
def test_an_axis_is_logarithmic_where_zero_is_the_floor(name: str, scale: str | None) -> None:
    figure = severity_curve(table(metric=name), name)
    marks = figure.spec()["spec"]["layer"]
    assert [layer["mark"]["type"] for layer in marks] == ["rule", "line", "rule", "point"]
    assert marks[1]["encoding"]["y"]["scale"].get("type") == scale


def test_the_metric_is_the_force_error_unless_another_is_named() -> None:
    both = pd.concat([table(metric="energy_mae"), table()])
    assert choose_metric(both) == "force_mae"
    assert choose_metric(both, "energy_mae") == "energy_mae"
    assert choose_metric(table(metric="position_mse")) == "position_mse"
    with pytest.raises(UserError, match="unknown metric"):
        choose_metric(both, "stress_mae")
