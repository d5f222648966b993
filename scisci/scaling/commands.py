"""What each `scisci scale` command does: read, compute, write the JSON, print the table."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console

from scisci.contracts.errors import UserError
from scisci.scaling import gift_eval, show
from scisci.scaling.cli import mapping
from scisci.scaling.critical_batch import stepwise
from scisci.scaling.dimension import intrinsic_dimension, read_features
from scisci.scaling.forecasting import forecast as forecast_at
from scisci.scaling.frontier import compute_exponents_agree
from scisci.scaling.frontier import frontier as frontier_of
from scisci.scaling.groups import Query, compare_groups, cross_groups, fit_groups, records, split_points
from scisci.scaling.records import fit_record, write_records
from scisci.scaling.robustness import robustness as robustness_of
from scisci.scaling.studies import study as study_of
from scisci.scaling.studies import study_records
from scisci.scaling.table import points
from scisci.scaling.trends import trend as trend_of


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _query(options: argparse.Namespace) -> Query:
    return Query(
        options.table,
        options.law,
        mapping(options.x, "--x"),
        options.y,
        by=_names(options.by),
        cluster=options.cluster,
        se=options.weights,
        where=options.where,
        delta=options.delta,
        resamples=options.bootstrap,
        seed=options.seed,
        noise=options.noise,
        holdout=getattr(options, "holdout", None),
    )


def _write(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    if options.json:
        write_records(options.json, found)


def laws(options: argparse.Namespace) -> None:
    """List the laws."""
    del options
    show.show_laws(Console())


def fit(options: argparse.Namespace) -> None:
    """Fit one law per group."""
    query = _query(options)
    found = records(fit_groups(query), query)
    _write(options, found)
    show.show_fits(Console(), found)


def study(options: argparse.Namespace) -> None:
    """All exponents of a results table."""
    found = study_records(study_of(options.table, options.y, _names(options.law), options.where), options.y)
    _write(options, found)
    show.show_study(Console(), found)


def compare(options: argparse.Namespace) -> None:
    """Exponent differences and the shared-exponent test."""
    found, lines = compare_groups(_query(options), options.pair)
    _write(options, found)
    console = Console()
    show.show_fits(console, found)
    show.show_differences(console, found)
    for line in lines:
        console.print(line, highlight=False, markup=False)


def crossover(options: argparse.Namespace) -> None:
    """Where the curves of the groups cross."""
    found = cross_groups(_query(options), options.reach)
    rows = [
        {"a": a.key, "b": b.key} | plain(asdict(result) | {"ci95": [result.low, result.high]}) for a, b, result in found
    ]
    _write(options, rows)
    lines = [(f"{a.name} vs {b.name}", result.verdict, result.words) for a, b, result in found]
    show.show_rows(Console(), "crossover", ("groups", "verdict", "in words"), lines)


def frontier(options: argparse.Namespace) -> None:
    """The compute-optimal exponent by three approaches."""
    columns = mapping(options.x, "--x")
    if not {"N", "D"} <= set(columns) <= {"N", "D", "C"}:
        raise UserError(f"a frontier has the variables N, D and perhaps C, not {', '.join(columns)}; see --x")
    found = frontier_of(
        options.table,
        options.y,
        columns["N"],
        columns["D"],
        columns.get("C"),
        kappa=options.kappa,
        budgets=options.budgets,
        where=options.where,
    )
    _write(options, [plain(asdict(each)) for each in found])
    rows = [
        (str(each.number), each.name, show.interval(each.value, each.low, each.high, each.reason), each.bias)
        for each in found
    ]
    title = "N_opt ~ C^a, 95 % interval"
    console = Console()
    show.show_rows(console, title, ("approach", "by", "a", "known bias"), rows)
    for line in compute_exponents_agree(found):
        console.print(line, highlight=False, markup=False)


def forecast(options: argparse.Namespace) -> None:
    """The loss at a scale not yet run."""
    at = {name: _number(value, "--at", "N=1e9") for name, value in mapping(options.at, "--at").items()}
    rows, lines = [], []
    for group in fit_groups(_query(options)):
        if group.fit is None:
            raise UserError(f"{group.name}: {group.reason}")
        refits = group.refits if np.isfinite(group.fit.delta) else None
        found = forecast_at(group.fit, at, refits=refits, reach=options.reach)
        rows.append({"group": group.key} | plain(asdict(found)))
        curve, run = (f"[{low:.4g}, {high:.4g}]" for low, high in (found.curve, found.run))
        lines.append((group.name, f"{found.value:.4g}", curve, run, f"{found.beyond:.3g}x"))
    _write(options, rows)
    head = ("group", "loss", "95 % of the curve", "95 % of a run", "beyond the data")
    show.show_rows(Console(), f"forecast at {options.at}", head, lines)


def _number(text: str, option: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"cannot read {text!r} in {option} as a number; write it as {example}") from None


def trend(options: argparse.Namespace) -> None:
    """The shape of the loss against scale."""
    columns = mapping(options.x, "--x")
    if len(columns) != 1:
        raise UserError("a trend is tested along one variable; write --x N=COLUMN")
    one = {"N": next(iter(columns.values()))}
    query = Query(
        options.table, "power", one, options.y, by=_names(options.by), cluster=options.cluster, where=options.where
    )
    rows, lines = [], []
    for key, data in split_points(query):
        found = trend_of(data)
        rows.append({"group": key} | plain(asdict(found)))
        name = ", ".join(str(value) for value in key.values()) or "all"
        held = ", ".join(f"{law} {error:.3g}" for law, error in found.held_out.items())
        lines.append((name, found.shape, found.law or "none", held, "; ".join(found.warnings)))
    _write(options, rows)
    show.show_rows(Console(), "shape", ("group", "shape", "law", "held-out error", "warnings"), lines)


def robustness(options: argparse.Namespace) -> None:
    """The line of OOD against ID."""
    found = robustness_of(options.table, options.y, _names(options.by), options.scale, options.where)
    _write(options, [plain(asdict(each)) for each in found])
    rows = []
    for each in found:
        slope = show.interval(each.slope, each.low, each.high)
        for i, (name, (value, low, high)) in enumerate(each.effective.items()):
            head = (each.split, slope, f"{each.p_shared:.2g}") if i == 0 else ("", "", "")
            rows.append((*head, name, show.interval(value, low, high)))
    columns = ("split", "slope of the line", "p (shared line)", "group", "above (+) or below (-) the others' line")
    show.show_rows(Console(), f"{options.y} out of distribution against 'test', {options.scale} scale", columns, rows)


def critical_batch(options: argparse.Namespace) -> None:
    """The critical batch size and the law of loss against parameters and steps."""
    columns = {"N": options.params, "S": options.steps, "B": options.batch}
    data = points(options.table, columns, options.y, where=options.where)
    levels = [_number(text, "--levels", "3.2,3.6,4.0") for text in _names(options.levels)]
    n, steps, batch = data.x
    found = stepwise(n, steps, batch, data.y, np.array(levels) if levels else None, options.size)
    shared = "the levels are read off the same curves, so that this interval is too narrow; repeat runs to know better"
    fits = [
        fit_record(found.converged, {"estimate": "lowest loss"}, metric=options.y),
        fit_record(found.critical, {"estimate": "critical batch"}, metric=options.batch),
        fit_record(found.joint, {"estimate": "loss by steps"}, metric=options.y),
    ]
    fits[1]["contours"] = [plain(asdict(each) | {"batch": each.batch}) for each in found.contours]
    fits[1]["warnings"].append(shared)
    fits[2]["warnings"].append("S_min takes the critical batch size as known; its uncertainty is not in this interval")
    _write(options, fits)
    console = Console()
    rows = [tuple(f"{v:.4g}" for v in (each.loss, each.steps, each.samples, each.batch)) for each in found.contours]
    show.show_rows(console, "what reaches a loss", ("loss", "fewest steps", "fewest samples", "critical batch"), rows)
    show.show_fits(console, fits)


def import_gift_eval(options: argparse.Namespace) -> None:
    """A results table of published results."""
    params = {}
    for text in options.params:
        model, _, number = text.rpartition("=")
        count = _number(number, "--params", "MODEL=4e6")
        if not 1 <= count < np.inf:
            raise UserError(f"--params {text} is no number of parameters; write it as MODEL=4e6")
        params[model] = int(count)
    found = gift_eval.import_gift_eval(options.files, options.out, options.seasonal_naive, params)
    print(f"{options.out}: {found.rows} rows of {found.models} models on {found.configurations} configurations")
    if options.seasonal_naive is None:
        print("no scores relative to the seasonal naive forecast; --seasonal-naive gives it")


def dimension(options: argparse.Namespace) -> None:
    """The intrinsic dimension of a data set."""
    columns = _names(options.columns)
    found = intrinsic_dimension(read_features(options.table, columns, options.where))
    least, most = found.resolution_limited
    entry = {"columns": columns, "n": found.n, "value": found.value, "ci95": [found.low, found.high]}
    _write(options, [entry | {"resolution_limited": [least, most]}])
    d = show.interval(found.value, found.low, found.high)
    head = ("samples", "d, 95 % interval", "exponents, 1/d to 4/d")
    title = "intrinsic dimension d (TwoNN), and what it allows where resolution limits"
    show.show_rows(Console(), title, head, [(str(found.n), d, f"{least:.3g} to {most:.3g}")])


def plain(value: Any) -> Any:
    """A value JSON can hold: NaN and infinities become null, arrays lists."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
