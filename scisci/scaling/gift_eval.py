"""Results of GIFT-Eval (Aksu et al., 2024) as a results table: its `all_results.csv`, a row per model and data set."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.results import RESULTS_SCHEMA, write_results

# The columns whose definition is that of a metric here.
METRICS = {
    "eval_metrics/MASE[0.5]": "series_mase",
    "eval_metrics/mean_weighted_sum_quantile_loss": "series_wql",
    "eval_metrics/sMAPE[0.5]": "series_smape",
}
RELATIVE = {"series_mase": "series_mase_relative", "series_wql": "series_wql_relative"}
WHOLE = "gift-eval"
"""What the table calls the data set of all configurations together."""
Scores = dict[str, dict[str, float]]
"""Configuration, such as `solar/H/short`, → metric → value."""


@dataclass(frozen=True)
class Imported:
    """How many models, configurations and rows a results table was made of."""

    models: int
    configurations: int
    rows: int


def import_gift_eval(
    files: Sequence[Path],
    out: Path,
    naive: Path | None = None,
    params: Mapping[str, int] | None = None,
) -> Imported:
    """Write what `files` hold of MASE, quantile loss and sMAPE as a results table of the split `test`.

    Each configuration is a data set. With the file of the seasonal `naive` forecast there is also the data set
    `gift-eval`, with each model's score: the geometric mean over all configurations of metric / that of the forecast,
    its standard error over configurations, and their number. `params` maps models to their numbers of parameters.
    """
    models: dict[str, Scores] = {}
    for file in files:
        for model, scores in read_scores(file).items():
            if model in models:
                raise UserError(f"{file} has results of {model}, which another file has too; give each model once")
            models[model] = scores
    for model in params or {}:
        if model not in models:
            raise unknown_name("model", model, models)
    reference = None
    if naive is not None:
        reference, *others = read_scores(naive).values()
        if others:
            raise UserError(
                f"{naive} has results of several models; give the file of the seasonal naive forecast alone"
            )
        for model, scores in models.items():
            _check_same(model, scores, reference, naive)
    rows = [
        row for model, scores in models.items() for row in _rows(model, scores, reference, (params or {}).get(model))
    ]
    write_results(out, rows)
    return Imported(len(models), len(set().union(*models.values())), len(rows))


def read_scores(path: Path) -> dict[str, Scores]:
    """Model → its scores; `UserError` that names line and column where a file is not as GIFT-Eval has them.

    Further columns are of no account, and their order neither.
    """
    found: dict[str, Scores] = {}
    for line, row in _lines(path):
        model, configuration = (row[name] for name in ("model", "dataset"))
        if not (model and configuration):
            raise UserError(f"line {line} of {path} names no model or no dataset; correct the file")
        scores = found.setdefault(model, {})
        if configuration in scores:
            raise UserError(f"line {line} of {path} has {model} on {configuration} again; leave one of the two")
        scores[configuration] = {name: _number(row[column], column, line, path) for column, name in METRICS.items()}
    if not found:
        raise UserError(f"{path} has no results; give an all_results.csv of GIFT-Eval")
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("dataset", "model", *METRICS) if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(missing)}; give an all_results.csv of GIFT-Eval")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"line {reader.line_num} of {path} has not as many cells as the header; correct it")
                yield reader.line_num, row
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give an all_results.csv of GIFT-Eval") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file ({error}); give an all_results.csv of GIFT-Eval") from error


def _number(text: str, column: str, line: int, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < np.inf:
        raise UserError(f"line {line} of {path} has {text!r} under {column}, which is no error; correct the file")
    return value


def _check_same(model: str, scores: Scores, reference: Scores, naive: Path) -> None:
    for lacking, other, one in ((model, naive, scores), (naive, model, reference)):
        if absent := [name for name in (*scores, *reference) if name not in one]:
            raise UserError(
                f"{lacking} lacks {len(absent)} of the configurations that {other} has, such as {absent[0]};"
                " scores compare only over the same ones"
            )
    for configuration in scores:
        for name in RELATIVE:
            if not (scores[configuration][name] > 0 and reference[configuration][name] > 0):
                raise UserError(f"{name} of {model} or {naive} is 0 on {configuration}; a geometric mean needs more")


def _rows(model: str, scores: Scores, reference: Scores | None, params: int | None) -> Iterator[dict[str, Any]]:
    run = dict.fromkeys(RESULTS_SCHEMA.names) | {
        "run": model,
        "study": WHOLE,
        "domain": "series",
        "architecture": model,
        "treatment": "none",
        "size": "",
        "params": params,
        "split": "test",
        "status": "ok",
    }
    for configuration, values in scores.items():
        for name, value in values.items():
            yield run | {"dataset": configuration, "metric": name, "value": value}
    if reference is None:
        return
    for name, relative in RELATIVE.items():
        logs = np.log([values[name] / reference[configuration][name] for configuration, values in scores.items()])
        value, n = float(np.exp(logs.mean())), len(logs)
        se = value * float(logs.std(ddof=1)) / n**0.5 if n > 1 else None
        yield run | {"dataset": WHOLE, "metric": relative, "value": value, "se": se, "n": n}
