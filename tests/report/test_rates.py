"""The chart of errors against learning rates, of trials whose values are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.results import rows, write_results
from scisci.contracts.run import EvaluationSpec, MetricValue, OptimizationSpec, RunResult, SplitResult
from scisci.report import charts
from scisci.report.cli import main
from scisci.report.study import assemble, read_table

from . import world

RATES = (0.001, 0.01, 0.1, 1.0)
# (architecture, size) → error by rate and seed; None where the run diverged
ERRORS: dict[tuple[str, int], list[list[float | None]]] = {
    ("mpnn", 0): [[30.0, 34.0], [20.0, 26.0], [18.0, None], [None, None]],
    ("nequip", 0): [[9.0, 9.0], [11.0, 12.0], [8.0, 9.5], [50.0, 90.0]],
    ("mpnn", 1): [[25.0, 25.0], [31.0, 33.0], [40.0, 41.0], [None, None]],
}


def trial(architecture: str, size: int, seed: int, rate: float, value: float | None, study: str) -> Iterator[Any]:
    spec = world.spec(architecture, size, 512, seed, study).model_copy(
        update={
            "optimization": OptimizationSpec(steps=9, learning_rate=rate),
            "evaluation": EvaluationSpec(splits=("val",)),
        }
    )
    splits = {} if value is None else {"val": SplitResult(metrics={"force_mae": MetricValue(value=value, se=0.1, n=9)})}
    result = RunResult(
        run=spec.run,
        status="diverged" if value is None else "ok",
        domain="atoms",
        params=1000 * 4**size,
        learning_rate=rate,
        device="cpu",
        splits=splits,
    )
    yield from rows(spec, result)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table as 'scisci tune' leaves it: the trials, and the models as they are untrained."""
    found: list[dict[str, Any]] = []
    for (architecture, size), by_rate in ERRORS.items():
        for seed in (0, 1):
            found += trial(architecture, size, seed, 1e-12, 100.0, "demo-tune-untrained")
            for rate, values in zip(RATES, by_rate, strict=True):
                found += trial(architecture, size, seed, rate, values[seed], "demo-tune")
    path = tmp_path_factory.mktemp("trials") / "trials.parquet"
    write_results(path, found)
    return path


def test_the_chart_has_every_trained_run_and_the_means_of_rates_that_count(trials: Path) -> None:
    spec = charts.rates(assemble(read_table(trials), [])).to_dict()
    shown = pd.DataFrame(json.loads(spec["datasets"][spec["data"]["name"]]))
    runs = shown[shown.kind == "run"].groupby(["series", "panel", "x"]).y.agg(sorted).to_dict()
    assert runs == {
        (architecture, world.SIZES[size], rate): sorted(ended)
        for (architecture, size), by_rate in ERRORS.items()
        for rate, values in zip(RATES, by_rate, strict=True)
        if (ended := [value for value in values if value is not None])
    }
    means = shown[shown.kind == "mean"].set_index(["series", "panel", "x"])
    assert means.y.to_dict() == {
        (architecture, world.SIZES[size], rate): sum(values) / 2  # type: ignore[arg-type]
        for (architecture, size), by_rate in ERRORS.items()
        for rate, values in zip(RATES, by_rate, strict=True)
        if None not in values
    }
    best = means.index[means.best.astype(bool)].tolist()
    assert sorted(best) == [("mpnn", "s", 0.001), ("mpnn", "xs", 0.01), ("nequip", "xs", 0.1)]


def test_the_chart_is_an_image_of_its_own(trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "charts"
    main([str(trials), "--chart", "rates", "--format", "svg", "--out", str(out)])
    assert capsys.readouterr().out.split() == [str(out / "rates.svg")]
    text = (out / "rates.svg").read_text(encoding="utf-8")
    assert all(words in text for words in ("learning rate", "force MAE [meV/Å]", "mpnn", "nequip", ">xs<", ">s<"))


def test_what_cannot_be_drawn_is_said(table: Path, trials: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained at several learning rates; make such a table by 'scisci tune'"):
        main([str(table), "--chart", "rates", "--format", "png", "--out", str(tmp_path / "charts")])
    with pytest.raises(UserError, match="--chart rates is an image; add --format png, svg or pdf"):
        main([str(trials), "--chart", "rates"])
    assert not list(tmp_path.iterdir())
