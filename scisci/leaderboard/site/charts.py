"""The charts of a board, as Vega-Lite specifications without rows: the page brings those of the models shown."""

from __future__ import annotations

from typing import Any

import altair as alt

from scisci.leaderboard.board import Board
from scisci.leaderboard.site.names import AXES, split_label

PANEL, GAP, MARGIN = 220, 16, 72
ROWS = "rows"
_FORMATS = {"params": "~s", "data": ",~r", "flops": "~s", "error": "~r"}


def specs(board: Board) -> dict[str, dict[str, Any]]:
    """The charts of a board by name: a scaling chart for each axis, `shift` and `compute`."""
    panels = [split_label(split) for split in board.splits]
    charts = {axis: _scaling(board, axis, panels) for axis in AXES}
    charts["compute"] = _compute(board, panels)
    if len(panels) > 1:
        charts["shift"] = _shift(board, panels[1:])
    return charts


def _scaling(board: Board, axis: str, panels: list[str]) -> dict[str, Any]:
    """Error against an axis: a mark per run, solid where it is on the entry's own ladder, and lines."""
    x, y = _log("x", AXES[axis], axis), _log("y", board.metric.title)
    solid = alt.condition(alt.datum.solid, alt.value(1), alt.value(0.25))
    layers = [
        _kind("fit").mark_line(strokeWidth=1.8, clip=True).encode(x, y, _colour()),
        _kind("mean").mark_line(strokeWidth=1.2, strokeDash=[2, 2]).encode(x, y, _colour()),
        _kind("run").mark_rule().encode(x, _low(board), alt.Y2("high:Q"), _colour(), opacity=solid),
        _kind("run")
        .mark_point(filled=True, size=46)
        .encode(x, y, _colour(), _shape(), opacity=solid, tooltip=_tooltip(board, "run", "size", "params", "data")),
        _kind("forecast").mark_rule(strokeWidth=1.4).encode(x, _low(board), alt.Y2("high:Q"), _colour()),
        _kind("forecast")
        .mark_point(filled=False, size=110, strokeWidth=1.8, shape="diamond", opacity=1)
        .encode(x, y, _colour(), tooltip=_tooltip(board)),
    ]
    about = (
        f"{board.metric.label} against {AXES[axis]}, a panel for each split, a mark for each run of the models shown"
    )
    return _panels(layers, panels, about)


def _shift(board: Board, panels: list[str]) -> dict[str, Any]:
    """OOD against ID error of every entry left by the filter, with y = x and the line of all entries."""
    x, y = _log("x", f"ID {board.metric.title}"), _log("y", f"OOD {board.metric.title}")
    tooltip = [alt.Tooltip("x:Q", title="ID error", format=".4~r"), *_tooltip(board)]
    layers = [
        _kind("band").mark_area(style="reference", opacity=0.18).encode(x, _low(board, "OOD "), alt.Y2("high:Q")),
        _kind("band").mark_line(style="reference", strokeWidth=1.6).encode(x, y),
        _kind("equal").mark_line(style="reference", strokeDash=[4, 4], strokeWidth=1.2).encode(x, y),
        *_entries(board, x, y, tooltip, "OOD "),
    ]
    return _panels(layers, panels, "OOD error against ID error, a panel for each shifted split, a mark for each model")


def _compute(board: Board, panels: list[str]) -> dict[str, Any]:
    """Error against training FLOPs of every entry left by the filter; the frontier is of those entries."""
    x, y = _log("x", AXES["flops"], "flops"), _log("y", board.metric.title)
    frontier = (
        _kind("other", "shown")
        .transform_window(best="min(y)", sort=[alt.SortField("x")], groupby=["panel"])
        .transform_filter("datum.y <= datum.best")
        .mark_line(style="reference", interpolate="step-after", strokeWidth=1.6)
        .encode(x, y)
    )
    tooltip = [alt.Tooltip("x:Q", title=AXES["flops"], format=".3~e"), *_tooltip(board, "params")]
    about = "Error against training compute, a panel for each split, a mark for each model, a line along the frontier"
    return _panels([frontier, *_entries(board, x, y, tooltip)], panels, about)


def _entries(board: Board, x: alt.X, y: alt.Y, tooltip: list[alt.Tooltip], side: str = "") -> list[alt.Chart]:
    """Marks of entries: grey, or in their colour and with their interval where the model is switched on."""
    shown = _kind("shown")
    return [
        _kind("other").mark_point(style="reference", filled=True, size=30, opacity=0.55).encode(x, y, tooltip=tooltip),
        shown.mark_rule(strokeWidth=1.4).encode(x, _low(board, side), alt.Y2("high:Q"), _colour()),
        shown.mark_point(filled=True, size=70, opacity=1).encode(x, y, _colour(), _shape(), tooltip=tooltip),
    ]


def _kind(*kinds: str) -> alt.Chart:
    """A layer over the chart's rows of some kinds, which the page leaves out where there are none."""
    return alt.Chart().transform_filter(alt.FieldOneOfPredicate(field="kind", oneOf=list(kinds)))


def _log(channel: str, title: str, label: str = "error") -> Any:
    """A logarithmic axis over the rows there are."""
    encoding = alt.X if channel == "x" else alt.Y
    scale = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(format=_FORMATS[label], tickCount=5, labelOverlap=True)
    return encoding(f"{channel}:Q", scale=scale, title=title, axis=axis)


def _low(board: Board, side: str = "") -> alt.Y:
    return alt.Y("low:Q", title=f"{side}{board.metric.title}")


def _colour() -> alt.Color:
    return alt.Color("model:N", legend=None)


def _shape() -> alt.Shape:
    return alt.Shape("model:N", legend=None)


def _tooltip(board: Board, *fields: str) -> list[alt.Tooltip]:
    """What a mark says when pointed at."""
    titles = {"params": "parameters", "data": "training samples"}
    return [
        alt.Tooltip("model:N"),
        alt.Tooltip("y:Q", title=board.metric.title, format=".4~r"),
        alt.Tooltip("low:Q", title="95 % from", format=".4~r"),
        alt.Tooltip("high:Q", title="to", format=".4~r"),
        *(
            alt.Tooltip(f"{name}:Q", title=titles[name], format=",") if name in titles else alt.Tooltip(f"{name}:N")
            for name in fields
        ),
    ]


def _panels(layers: list[alt.Chart], order: list[str], about: str) -> dict[str, Any]:
    """Layers over rows named `rows`, a panel for each value of their column `panel`."""
    facet = alt.Facet("panel:N", sort=order, header=alt.Header(title=None))
    layout = {"columns": len(order), "min": 168, "max": 360, "aspect": 0.95, "margin": MARGIN, "gap": GAP}
    chart = (
        alt.layer(*layers, data=alt.NamedData(name=ROWS))
        .properties(width=PANEL, height=PANEL)
        .facet(facet=facet, columns=len(order))
        .properties(spacing=GAP, description=about, usermeta={"panels": layout})
        .resolve_axis(x="independent")
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec
