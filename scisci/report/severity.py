"""Error against the severity of a shift, sample by sample: the chart of a table of binned errors."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import t as student

from scisci.contracts.errors import unknown_name
from scisci.contracts.metrics import metric
from scisci.report.layout import Figure
from scisci.report.wording import log_ticks

WHERE = ["in distribution", "out of distribution"]
CAPTION = (
    "Equally full bins of each split with 95 % intervals over groups. Full marks: in distribution; open: out of it;"
    " dashed: where the former end."
)


def choose_metric(table: pd.DataFrame, name: str | None = None) -> str:
    """The metric to draw: `name` if the table has it, else the force error, else the first."""
    known = list(dict.fromkeys(table.metric))
    if name is not None and name not in known:
        raise unknown_name("metric of these predictions", name, known)
    return name or ("force_mae" if "force_mae" in known else known[0])


def severity_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table's rows for a metric, with `low` and `high` of the 95 % interval, `where`, `panel`, and ID's `end`.

    The interval is Student's over the groups of a bin, few as they may be; over samples where there is one group.
    """
    rows = table[table.metric == name]
    if metric(name).natural_zero:
        rows = rows[rows.value > 0]
    grouped = rows.se_groups.notna()
    freedom = rows.groups.where(grouped, rows.n) - 1
    half = student.ppf(0.975, freedom.clip(lower=1)) * rows.se_groups.where(grouped, rows.se).fillna(0.0)
    rows = rows.assign(
        low=(rows.value - half).clip(lower=rows.value / 100) if metric(name).natural_zero else rows.value - half,
        high=rows.value + half,
        where=np.where(rows.split.str.startswith("ood_"), WHERE[1], WHERE[0]),
        panel=rows["shift"].str.replace("_", " ") + (" [" + rows.unit + "]").where(rows.unit != "", ""),
    )
    ends = rows[rows["where"] == WHERE[0]].groupby("panel").severity_max.max()
    return rows.assign(end=rows.panel.map(ends))


def severity_curve(table: pd.DataFrame, name: str) -> Figure:
    """Error `name` against severity, from a table of binned errors: a panel per shift, a mark per bin."""
    rows, measured = severity_rows(table, name), metric(name)
    low, high = float(rows.value.min()) / 1.6, float(rows.value.max()) * 1.6
    log = alt.Scale(type="log", domain=[low, high], nice=False)
    scale = log if measured.natural_zero else alt.Scale(zero=False)
    axis = alt.Axis(values=log_ticks(low, high)) if measured.natural_zero else alt.Axis()
    x = alt.X("severity:Q", title="severity", scale=alt.Scale(zero=False, padding=12))
    y, y_low = alt.Y("value:Q", title=measured.title, scale=scale, axis=axis), alt.Y("low:Q", title=measured.title)
    colour = alt.Color("model:N", sort=None, legend=alt.Legend(title=None, orient="top"))
    fill = alt.FillOpacity("where:N", scale=alt.Scale(domain=WHERE, range=[1, 0]), legend=None)
    said = ["model:N", "split:N", "severity:Q", alt.Tooltip("value:Q", title=measured.title, format=".4~r"), "n:Q"]
    base = alt.Chart().properties(width=420, height=280)
    layers = alt.layer(
        base.mark_rule(style="reference", strokeDash=[4, 4]).encode(x=alt.X("max(end):Q", title="severity")),
        base.mark_line(strokeWidth=1.4, opacity=0.6).encode(x, y, colour, alt.Detail("split:N")),
        base.mark_rule(strokeWidth=1.2, opacity=0.8, clip=True).encode(x, y_low, alt.Y2("high:Q"), colour),
        base.mark_point(size=46, strokeWidth=1.6).encode(
            x, y, colour, alt.Fill("model:N", legend=None), fill, tooltip=said
        ),
    )
    order = list(dict.fromkeys(rows.panel))
    panels = alt.Facet("panel:N", title=None, sort=order)
    chart = layers.facet(facet=panels, columns=min(2, len(order)), data=rows, spacing=24).resolve_scale(x="independent")
    return Figure("severity", f"{measured.label} against severity", CAPTION, chart, CAPTION)
