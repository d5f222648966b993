"""One function per chart, each from a study to an Altair chart without colours: the theme brings those.

Every chart carries `usermeta["panels"]`, which the page's script reads to lay the panels out in the width
there is: at most `columns` side by side, each `min` to `max` pixels wide and `aspect` times as high, with
`gap` between them and `margin` for the axis at their left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import pandas as pd

from scisci.contracts.metrics import SYMMETRY_GROUPS
from scisci.report import chartdata
from scisci.report.study import AXES, Study
from scisci.report.theme import DASHES, VERDICTS
from scisci.report.wording import linear_ticks, log_ticks

PANEL = 168  # width of a panel in pixels where nothing lays the chart out again
GAP = 16  # between panels

_FORMATS = {"params": "~s", "data": ",~r", "flops": "~s", "error": "~r", "rate": "~r"}
_FIT_TOOLTIP = ["series:N", "exponent:N", "verdict:N", "law:N"]


def loss_against(study: Study, axis: str) -> alt.FacetChart:
    """Error against parameters, data or FLOPs, log-log: a panel per split, a mark per run, a curve per fit.

    Runs that the fits shown used are solid and carry their 95 % interval; the others are faint.
    """
    points, curves = chartdata.run_points(study, axis), chartdata.fit_curves(study, axis)
    layers = _curve_layers(study, points, curves, axis)
    return _panels([points, curves], layers, [split.label for split in study.splits], aspect=1.25)


def overview(study: Study, axis: str) -> alt.FacetChart:
    """The study in one picture: the runs of the fits along `axis`, their curves, the exponents in words."""
    points, curves = chartdata.run_points(study, axis), chartdata.fit_curves(study, axis)
    points = points[points.used]
    words = chartdata.exponent_words(study, axis)
    room = 10 + 14 * len(study.series)
    layers = _curve_layers(study, points, curves, axis, headroom=room / (1.6 * PANEL))
    colour, _ = _series(study)
    for row, series in enumerate(study.series):
        layers.append(
            alt.Chart()
            .transform_filter(alt.FieldEqualPredicate(field="kind", equal="words"))
            .transform_filter(alt.FieldEqualPredicate(field="series", equal=series))
            .mark_text(align="left", fontSize=9, fontWeight=600)
            .encode(x=alt.value(6), y=alt.value(14 + 14 * row), text="words:N", color=colour)
        )
    return _panels([points, curves, words], layers, [split.label for split in study.splits], aspect=1.6)


def ood_against_id(study: Study) -> alt.FacetChart:
    """Error out of distribution against error in it, run by run, on equal scales with the line y = x."""
    rows = chartdata.paired_errors(study)
    ends = _span(pd.concat([rows.x, rows.y]), study.logarithmic)
    panels = [split.label for split in study.splits if split.ood]
    diagonal = pd.DataFrame([{"kind": "equal", "panel": panel, "x": at, "y": at} for panel in panels for at in ends])
    across, up = (f"{kind} {study.metric.title}" for kind in ("ID", "OOD"))
    x, y = (_axis(channel, ends, title, study.logarithmic) for channel, title in (("x", across), ("y", up)))
    low, x_low = alt.Y("low:Q", title=up), alt.X("x_low:Q", title=across)
    colour, shape = _series(study)
    layers = [
        _rows("equal").mark_line(style="reference", strokeDash=[4, 4], strokeWidth=1.2).encode(x, y),
        _rows("run").mark_rule(opacity=0.5, clip=True).encode(x, low, alt.Y2("high:Q"), colour),
        _rows("run").mark_rule(opacity=0.5, clip=True).encode(x_low, y, alt.X2("x_high:Q"), colour),
        _rows("run")
        .mark_point(filled=True, size=36, opacity=0.85, clip=True)
        .encode(x, y, colour, shape, tooltip=_run_tooltip("y", up, "x", across)),
    ]
    return _panels([rows, diagonal], layers, panels, aspect=1)


def severity(study: Study) -> alt.FacetChart:
    """Error as one kind of shift grows: the run chosen in distribution in bold, every other run faint."""
    rows = chartdata.severity_errors(study)
    order = [split.label for split in study.splits]
    x = alt.X("label:O", sort=order, title=None, axis=alt.Axis(labelAngle=0, labelPadding=6))
    y = _axis("y", _span(pd.concat([rows.low, rows.high]), study.logarithmic), study.metric.title, study.logarithmic)
    low = alt.Y("low:Q", title=study.metric.title)
    colour, shape = _series(study)
    bold = alt.FieldEqualPredicate(field="used", equal=True)
    detail = alt.Detail("run:N")
    layers = [
        _rows("run").mark_line(strokeWidth=0.8, opacity=0.22).encode(x, y, colour, detail),
        _rows("run").transform_filter(bold).mark_line(strokeWidth=2.2).encode(x, y, colour, detail),
        _rows("run").transform_filter(bold).mark_rule(strokeWidth=1.4).encode(x, low, alt.Y2("high:Q"), colour),
        _rows("run")
        .transform_filter(bold)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(x, y, colour, shape, tooltip=_run_tooltip("y", study.metric.title)),
    ]
    return _panels([rows], layers, rows.panel.unique().tolist(), aspect=0.55, width=520)


def rates(study: Study) -> alt.FacetChart:
    """Error against learning rate: a panel per size, a mark per run, a line through the means, a ring at the best."""
    rows = chartdata.rate_errors(study)
    x = _axis("x", _span(rows.x), "learning rate", label="rate")
    y = _axis("y", _span(rows.y, study.logarithmic), study.metric.title, study.logarithmic)
    colour, shape = _series(study)
    best = alt.FieldEqualPredicate(field="best", equal=True)
    layers = [
        _rows("mean").mark_line(strokeWidth=1.8, clip=True).encode(x, y, colour),
        _rows("mean").transform_filter(best).mark_point(size=150, strokeWidth=1.6, clip=True).encode(x, y, colour),
        _rows("run")
        .mark_point(filled=True, size=30, opacity=0.85, clip=True)
        .encode(x, y, colour, shape, tooltip=_run_tooltip("y", study.metric.title, "x", "learning rate")),
    ]
    return _panels([rows], layers, rows.panel.unique().tolist(), aspect=1)


def symmetry(study: Study) -> alt.FacetChart:
    """Equivariance error per architecture and group on a log axis: a mark per run, a bar at the median.

    Errors of exactly zero stand hollow on the axis's first line, which is labelled 0.
    """
    rows, floor = chartdata.symmetry_errors(study)
    ticks = log_ticks(floor * 10, max(1.0, rows.x.max()))
    zero = [floor] if rows.exact.any() else []
    scale = alt.Scale(type="log", domain=[floor * 0.6, max(1.0, rows.x.max()) * 1.5], nice=False)
    label = f"datum.value < {floor * 2!r} ? '0' : format(datum.value, datum.value < 0.1 ? '~e' : '~r')"
    x = alt.X("x:Q", scale=scale, title="relative error", axis=alt.Axis(values=zero + ticks, labelExpr=label))
    groups = [group for group in SYMMETRY_GROUPS if group in set(rows.group)]
    y = alt.Y("group:N", sort=groups, title=None)
    offset = alt.YOffset("series:N", sort=list(study.series))
    colour, shape = _series(study)
    hollow = alt.condition(alt.datum.exact, alt.value(0), alt.value(0.75))
    layers = [
        _rows("median")
        .mark_tick(thickness=2.5, size=13, opacity=0.9)
        .encode(x, y, offset, colour, tooltip=["series:N", "group:N", alt.Tooltip("x:Q", format=".2~e")]),
        _rows("run")
        .mark_point(size=34, strokeWidth=1.3, clip=True)
        .encode(x, y, offset, colour, shape, alt.Fill("series:N", legend=None), fillOpacity=hollow)
        .encode(tooltip=_run_tooltip("value", "relative error", form=".2~e")),
    ]
    lines = chartdata.rounding_units(rows)
    if len(lines):
        layers.insert(0, _rows("precision").mark_rule(style="reference", strokeDash=[4, 4]).encode(x))
    medians = chartdata.symmetry_medians(rows)
    return _panels([rows, medians, lines], layers, rows.panel.unique().tolist(), aspect=0.75, width=360, margin=110)


def _curve_layers(
    study: Study, points: pd.DataFrame, curves: pd.DataFrame, axis: str, headroom: float = 0.0
) -> list[alt.Chart]:
    """Band, curve, intervals and marks along an axis; the top `headroom` of a panel is kept free."""
    x = _axis("x", _span(points.x), AXES[axis], label=axis)
    y = _axis("y", _errors_span(study, points), study.metric.title, study.logarithmic, headroom=headroom)
    low = alt.Y("low:Q", title=study.metric.title)
    colour, shape = _series(study)
    shown = [verdict for verdict in VERDICTS if verdict in set(curves.verdict)]
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolSize=300, labelExpr="'fit ' + datum.label")
    dash = alt.StrokeDash(
        "verdict:N",
        scale=alt.Scale(domain=shown, range=[DASHES[VERDICTS.index(verdict)] for verdict in shown]),
        legend=legend if shown not in ([], ["identified"]) else None,
    )
    used = alt.datum.used
    solid, faint = (
        alt.condition(used, alt.value(1), alt.value(0)),
        alt.condition(used, alt.value(1), alt.value(0.25)),
    )
    return [
        _rows("curve").mark_area(opacity=0.16, clip=True).encode(x, low, alt.Y2("high:Q"), colour),
        _rows("curve").mark_line(strokeWidth=1.8, clip=True).encode(x, y, colour, dash, tooltip=_FIT_TOOLTIP),
        _rows("run").mark_rule(strokeWidth=1.2, clip=True).encode(x, low, alt.Y2("high:Q"), colour, opacity=solid),
        _rows("run")
        .mark_point(filled=True, clip=True)
        .encode(x, y, colour, shape, opacity=faint, size=alt.condition(used, alt.value(46), alt.value(24)))
        .encode(tooltip=_run_tooltip("y", study.metric.title)),
    ]


def _rows(kind: str) -> alt.Chart:
    """A layer over the chart's rows of one kind; panels of layers must share one data set."""
    return alt.Chart().transform_filter(alt.FieldEqualPredicate(field="kind", equal=kind))


def _panels(
    frames: Sequence[pd.DataFrame],
    layers: Sequence[alt.Chart],
    order: Sequence[str],
    aspect: float,
    width: int = PANEL,
    margin: int = 72,
) -> alt.FacetChart:
    """Layers over one data set, a panel for each value of its column `panel`."""
    # As JSON text: Altair checks and copies every value of a list, which takes minutes for a large sweep.
    rows = json.dumps([row for frame in frames for row in _records(frame)], ensure_ascii=False, allow_nan=False)
    data = alt.InlineData(values=rows, format=alt.JsonDataFormat(type="json"))
    panels = {
        "columns": len(order),
        "min": PANEL,
        "max": round(1.5 * width),
        "aspect": aspect,
        "margin": margin,
    }
    return (
        alt.layer(*layers, data=data)
        .properties(width=width, height=round(width * aspect))
        .facet(facet=alt.Facet("panel:N", sort=list(order), header=alt.Header(title=None)), columns=len(order))
        .properties(spacing=GAP, usermeta={"panels": panels | {"gap": GAP}})
        .resolve_axis(x="independent")
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values; what is not there is None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _series(study: Study) -> tuple[alt.Color, alt.Shape]:
    """Colour and mark of each series: the same in every chart of the page."""
    scale = alt.Scale(domain=list(study.series))
    legend = alt.Legend(title=None, orient="top", symbolSize=70, symbolOpacity=1)
    return alt.Color("series:N", scale=scale, legend=legend), alt.Shape("series:N", scale=scale, legend=legend)


def _span(values: Iterable[float], log: bool = True) -> list[float]:
    """The range of `values` with a margin on both sides, on a log axis of the positive ones; [1, 10] without any."""
    inside = [float(value) for value in values if value > 0 or not log]
    if not inside:
        return [1.0, 10.0]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low) or 1.0
    return [low / 1.18, high * 1.18] if log else [low - margin, high + margin]


def _errors_span(study: Study, points: pd.DataFrame) -> list[float]:
    """The range of errors, with as much of their intervals as leaves the marks most of the axis."""
    low, high = points.y.min(), points.y.max()
    room = max(1.5, (high / low) ** 0.4) if study.logarithmic else 0.4 * (high - low)
    ends = (low / room, high * room) if study.logarithmic else (low - room, high + room)
    bars = points[points.used]
    return _span(pd.concat([points.y, bars.low.clip(lower=ends[0]), bars.high.clip(upper=ends[1])]), study.logarithmic)


def _axis(
    channel: str, domain: list[float], title: str, log: bool = True, label: str = "error", headroom: float = 0.0
) -> Any:
    """An axis over `domain` with round ticks, logarithmic or linear; its last `headroom` (0 to 1) is free of them."""
    low, high = domain
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    reach = headroom / (1 - headroom)
    high = high * (high / low) ** reach if log else high + reach * (high - low)
    axis = alt.Axis(values=ticks, format=_FORMATS[label], labelOverlap=True)
    scale = alt.Scale(type="log" if log else "linear", domain=[low, high], nice=False)
    encoding = alt.X if channel == "x" else alt.Y
    return encoding(f"{channel}:Q", scale=scale, axis=axis, title=title)


def _run_tooltip(*fields: str, form: str = ".4~r") -> list[alt.Tooltip]:
    """What a run's mark says when pointed at: `fields` are pairs of a column and its words."""
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return [
        alt.Tooltip("series:N", title="architecture"),
        *(alt.Tooltip(f"{name}:Q", title=words, format=form) for name, words in pairs),
        alt.Tooltip("size:N"),
        alt.Tooltip("params:Q", title="parameters", format=","),
        alt.Tooltip("data:Q", title="training samples", format=","),
        alt.Tooltip("flops:Q", title="training FLOPs", format=".3~e"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("run:N"),
    ]
