from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import vl_convert

from scisci.report import chartdata, charts
from scisci.report.layout import figures, scaling
from scisci.report.page import VEGA_LITE
from scisci.report.study import Study, assemble


def rows(chart: alt.FacetChart, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind that a chart's specification carries."""
    spec = chart.to_dict()
    carried = json.loads(spec["datasets"][spec["data"]["name"]])
    return [row for row in carried if row["kind"] == kind]


def table_rows(path: Path, metric: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The table's rows of one metric by run and split, read without the report's code."""
    table = pq.read_table(path).filter(pc.field("metric") == metric)
    return {(row["run"], row["split"]): row for row in table.to_pylist()}


@pytest.mark.parametrize("axis", ["params", "data", "flops"])
def test_a_scaling_chart_shows_every_finished_run_of_the_table(study: Study, table: Path, axis: str) -> None:
    expected = table_rows(table, "force_mae")
    shown = {(row["run"], row["split"]): row for row in rows(charts.loss_against(study, axis), "run")}
    assert shown.keys() == expected.keys()
    assert len(shown) == 46 * 5
    for key, row in shown.items():
        truth = expected[key]
        assert (row["x"], row["y"]) == (truth[axis], truth["value"])
        assert row["high"] == pytest.approx(truth["value"] + 1.96 * truth["se_groups"], rel=1e-4)
        assert row["low"] == pytest.approx(truth["value"] - 1.96 * truth["se_groups"], rel=1e-4)


def test_solid_marks_are_the_runs_of_the_fits(study: Study, table: Path) -> None:
    fits = json.loads(table.with_name("fits.json").read_text())
    used = {(run, f["group"]["split"]) for f in fits if f["axis"] == "data" for run in f["points"]["run"]}
    shown = rows(charts.loss_against(study, "data"), "run")
    assert {(row["run"], row["split"]) for row in shown if row["used"]} == used
    assert {(row["run"], row["split"]) for row in shown if not row["used"]}.isdisjoint(used)


def test_curves_are_those_of_the_fits(study: Study, table: Path) -> None:
    shown = rows(charts.loss_against(study, "params"), "curve")
    for fit in json.loads(table.with_name("fits.json").read_text()):
        if fit["axis"] != "params":
            continue
        label = study.labels[fit["group"]["split"]]
        mine = [r for r in shown if r["series"] == fit["group"]["architecture"] and r["panel"] == label]
        assert [r["x"] for r in mine] == fit["curve"]["x"]
        assert [r["y"] for r in mine] == fit["curve"]["value"]
        assert [r["low"] for r in mine] == fit["curve"]["lo"]
        assert [r["high"] for r in mine] == fit["curve"]["hi"]
        assert {r["verdict"] for r in mine} == {fit["audit"]["verdict"]}


def test_without_fits_every_run_is_solid(unfitted: Study) -> None:
    chart = charts.loss_against(unfitted, "params")
    assert not rows(chart, "curve")
    assert all(row["used"] for row in rows(chart, "run"))


def test_ood_marks_pair_the_same_run(study: Study, table: Path) -> None:
    expected = table_rows(table, "force_mae")
    shown = rows(charts.ood_against_id(study), "run")
    assert len(shown) == 46 * 4
    for row in shown:
        assert row["x"] == expected[row["run"], "test"]["value"]
        assert row["y"] == expected[row["run"], row["split"]]["value"]
    assert all(row["x"] == row["y"] for row in rows(charts.ood_against_id(study), "equal"))


def test_severity_runs_from_id_outwards(study: Study) -> None:
    chart = charts.severity(study)
    shown = rows(chart, "run")
    severities = {row["split"]: row["severity"] for row in shown}
    assert severities == {"test": 300, "ood_600K": 600, "ood_1200K": 1200}
    order = chart.to_dict()["spec"]["layer"][0]["encoding"]["x"]["sort"]
    assert order.index("ID · test") < order.index("OOD · 600K") < order.index("OOD · 1200K")


def test_bold_runs_are_chosen_in_distribution(study: Study, table: Path) -> None:
    bold = {row["series"]: row["run"] for row in rows(charts.severity(study), "run") if row["used"]}
    inside = [row for (_, split), row in table_rows(table, "force_mae").items() if split == "test"]
    for architecture in study.series:
        best = min((r for r in inside if r["architecture"] == architecture), key=lambda r: r["value"])
        assert bold[architecture] == best["run"]


def test_an_error_of_zero_stands_at_a_floor_below_all_others(study: Study) -> None:
    shown = rows(charts.symmetry(study), "run")
    exact = [row for row in shown if row["exact"]]
    others = [row for row in shown if not row["exact"]]
    assert {(row["series"], row["group"]) for row in exact} == {("mpnn", "permutation")}
    assert all(row["value"] == 0 for row in exact)
    assert all(row["value"] == row["x"] > 0 for row in others)
    floor = {row["x"] for row in exact}
    assert len(floor) == 1
    assert max(floor) <= min(row["x"] for row in others) / 10
    label = vl_convert.vegalite_to_svg(charts.symmetry(study).to_dict(), vl_version=VEGA_LITE)
    assert re.search(r">0</text>", label)


def test_values_that_a_log_axis_cannot_hold_are_left_out(frame: pd.DataFrame) -> None:
    zero = frame.assign(value=frame.value.where(frame.data != 64, 0.0))
    shown = rows(charts.loss_against(assemble(zero, []), "params"), "run")
    assert all(row["y"] > 0 for row in shown)
    assert {row["data"] for row in shown} == {512, 4096, 16384}


def test_an_architecture_has_one_colour_and_mark_in_all_charts(study: Study) -> None:
    for figure in figures(study):
        text = json.dumps(figure.spec())
        domains = re.findall(r'"series", "legend": [^}]*\}, "scale": \{"domain": (\[[^\]]*\])', text)
        assert domains, figure.key
        assert all(json.loads(domain) == list(study.series) for domain in domains)
        assert not re.search(r"#[0-9a-f]{6}", text), "colours belong to the theme"


def test_rendered_marks_are_as_many_as_the_rows(study: Study) -> None:
    chart = charts.loss_against(study, "params")
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE)
    assert svg.count('aria-roledescription="point"') == len(rows(chart, "run"))
    assert svg.count('aria-roledescription="line mark container"') >= 5
    for split in study.splits:
        assert split.label in svg


def test_the_overview_says_each_exponent_as_the_fits_print_it(study: Study) -> None:
    words = [row["words"] for row in rows(charts.overview(study, "params"), "words")]
    assert len(words) == 15
    assert "transformer not identified" in words
    for fit in study.fits_of("params"):
        assert f"{fit.series} {fit.text}" in words


def test_a_sweep_too_large_to_draw_keeps_the_runs_of_fits_and_an_even_share() -> None:
    many = pd.DataFrame({"run": [f"r{i % 5000}" for i in range(10_000)]})
    many["used"] = many.run.isin(["r1", "r4999"])
    kept = chartdata.thinned(many, limit=500)
    assert 400 <= kept.run.nunique() <= 502
    assert {"r1", "r4999"} <= set(kept.run)
    assert kept.groupby("run").size().eq(2).all()
    assert chartdata.thinned(many.assign(used=True), limit=500).run.nunique() == 500
    assert len(chartdata.thinned(many, limit=5000)) == 10_000


def test_a_chart_that_cannot_draw_every_run_says_so(study: Study, frame: pd.DataFrame) -> None:
    by_key = {figure.key: figure for figure in figures(study)}
    assert "finished runs are drawn" not in by_key["error-params"].caption
    zero = assemble(frame.assign(value=frame.value.where(frame.data != 64, 0.0)), [])
    by_key = {figure.key: figure for figure in figures(zero)}
    assert by_key["error-params"].caption.endswith("35 of 46 finished runs are drawn.")


def test_an_axis_that_no_run_has_a_value_on_has_no_chart(frame: pd.DataFrame) -> None:
    keys = {figure.key for figure in figures(assemble(frame.assign(flops=float("nan")), []))}
    assert "error-flops" not in keys
    assert {"error-params", "error-data"} <= keys


def test_a_rounding_unit_stands_in_the_panels_of_its_precision_alone(frame: pd.DataFrame) -> None:
    """Every symmetry error of the table is doubled by one in float64, 9 decades smaller."""
    symmetric = frame[frame.metric.fillna("").str.startswith("symmetry_")]
    double = symmetric.assign(metric=symmetric.metric + "_float64", value=symmetric.value * 1e-9)
    chart = charts.symmetry(assemble(pd.concat([frame, double]), []))
    lines = {row["panel"]: row["x"] for row in rows(chart, "precision")}
    assert lines == {
        "energy": pytest.approx(np.finfo(np.float32).eps),
        "forces": pytest.approx(np.finfo(np.float32).eps),
        "energy, float64": pytest.approx(np.finfo(np.float64).eps),
        "forces, float64": pytest.approx(np.finfo(np.float64).eps),
    }


def test_a_tick_at_zero_needs_an_error_of_zero(frame: pd.DataFrame) -> None:
    labelled = lambda study: len(
        charts.symmetry(study).to_dict()["spec"]["layer"][-1]["encoding"]["x"]["axis"]["values"]
    )
    positive = frame[~(frame.metric.fillna("").str.startswith("symmetry_") & (frame.value == 0))]
    assert labelled(assemble(frame, [])) == labelled(assemble(positive, [])) + 1


@pytest.fixture(scope="module")
def likelihoods(frame: pd.DataFrame) -> Study:
    """The study with its errors as log-likelihoods of series: lower is better, some are negative, none is a floor."""
    value = np.log(frame.value.where(frame.value > 0, 1.0) / 60)
    likelihood = frame.assign(metric=frame.metric.replace("force_mae", "series_nll"), value=value, error=0.3)
    return assemble(likelihood.assign(low=value - 0.6, high=value + 0.6), [], "series_nll")


def test_a_metric_that_may_be_negative_is_drawn_on_a_linear_axis_run_by_run(likelihoods: Study) -> None:
    truth = likelihoods.scores.set_index(["run", "split"]).value
    assert (truth < 0).any()
    for name, spec in {f.key: f.spec()["spec"]["layer"] for f in figures(likelihoods) if f.key != "symmetry"}.items():
        types = {enc["y"]["scale"]["type"] for layer in spec if "scale" in (enc := layer["encoding"]).get("y", {})}
        assert types == {"linear"}, name
    shown = {(row["run"], row["split"]): row for row in rows(charts.loss_against(likelihoods, "params"), "run")}
    assert {key: row["y"] for key, row in shown.items()} == truth.to_dict()
    assert all(row["low"] == row["y"] - 0.6 for row in shown.values())
    assert len(rows(charts.ood_against_id(likelihoods), "run")) == 46 * 4
    assert {row["run"] for row in rows(charts.severity(likelihoods), "run")} == set(likelihoods.scores.run)


def test_a_caption_says_which_axes_are_logarithmic(study: Study, likelihoods: Study) -> None:
    captions = lambda study: {figure.key: figure.caption for figure in figures(study)}
    assert captions(study)["error-params"].startswith("Both axes are logarithmic.")
    assert "both axes are logarithmic and the same" in captions(study)["ood-id"]
    assert captions(likelihoods)["error-params"].startswith("The axis of parameters is logarithmic.")
    assert "both axes are the same" in captions(likelihoods)["ood-id"]


def test_a_linear_axis_holds_its_marks_and_has_ticks_inside(likelihoods: Study) -> None:
    axis = charts.loss_against(likelihoods, "params").to_dict()["spec"]["layer"][-1]["encoding"]["y"]
    low, high = axis["scale"]["domain"]
    assert low < likelihoods.scores.value.min() < likelihoods.scores.value.max() < high
    assert 3 <= len(axis["axis"]["values"]) <= 7
    assert all(low <= tick <= high for tick in axis["axis"]["values"])


def test_bars_have_room_but_leave_most_of_the_axis_to_the_marks(frame: pd.DataFrame) -> None:
    """Intervals of a thousand times their value do not squeeze the marks; small ones are shown whole."""
    domain = lambda study: charts.loss_against(study, "params").to_dict()["spec"]["layer"][-1]["encoding"]["y"]["scale"]
    values = frame[(frame.metric == "force_mae") & (frame.status == "ok")].value
    decades = np.log10(values.max() / values.min())
    wide = assemble(frame.assign(low=frame.value / 1000, high=frame.value * 1000), [])
    low, high = domain(wide)["domain"]
    assert decades < np.log10(high / low) < 2 * decades
    low, high = domain(assemble(frame.assign(low=frame.value * 0.9, high=frame.value * 1.1), []))["domain"]
    assert low < values.min() * 0.9 < values.max() * 1.1 < high


@pytest.mark.parametrize(
    ("levels", "panel"), [(["ood_600K"], "OOD · 600K"), (["ood_600K", "ood_1200K"], "OOD · 600K … 1200K")]
)
def test_a_kind_of_shift_is_called_by_its_levels(frame: pd.DataFrame, levels: list[str], panel: str) -> None:
    few = frame[frame.split.isin(["test", *levels]) | frame.split.isna()]
    assert {row["panel"] for row in rows(charts.severity(assemble(few, [])), "run")} == {panel}


@pytest.mark.parametrize(("axis", "symbol"), [("params", "N"), ("data", "D"), ("flops", "C")])
def test_a_law_is_written_in_the_variable_of_its_axis(study: Study, axis: str, symbol: str) -> None:
    assert f"{symbol}^(−α)" in scaling(study, axis)[0].caption
