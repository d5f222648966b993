"""A fit as a chart: points, curve and band in log-log; observed against fitted for laws of several variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from scisci.scaling.fitted import Fit
from scisci.scaling.records import exponent_text


def plot(fit: Fit) -> Any:
    """An Altair chart of one fit, titled with what may be said about its exponent."""
    import altair as alt

    title = f"{fit.law.name}: {fit.law.exponent} {exponent_text(fit)}"
    data = fit.points
    unit = f" [{data.unit}]" if data.unit else ""
    scale = alt.Scale(type="log", nice=False)
    if len(data.x) != 1:
        fitted = fit.law.predict(data.x, fit.internal)
        rows = [{"fitted": float(f), "observed": float(y)} for f, y in zip(fitted, data.y, strict=True)]
        ends = [float(np.minimum(fitted, data.y).min()), float(np.maximum(fitted, data.y).max())]
        x = alt.X("fitted:Q", scale=scale, title=f"fitted {data.metric}{unit}")
        y = alt.Y("observed:Q", scale=scale, title=f"observed {data.metric}{unit}")
        dots = alt.Chart(alt.Data(values=rows)).mark_point(filled=True).encode(x=x, y=y)
        line = [{"fitted": end, "observed": end} for end in ends]
        return alt.layer(alt.Chart(alt.Data(values=line)).mark_line(color="black").encode(x=x, y=y), dots, title=title)
    curve = fit.curve()
    assert curve is not None
    x = alt.X("x:Q", scale=scale, title=data.columns[0] if data.columns else fit.law.variables[0])
    name = f"{data.metric}{unit}"
    y = alt.Y("value:Q", scale=scale, title=name)
    along = [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]
    dots = [{"x": float(n), "value": float(v)} for n, v in zip(data.x[0], data.y, strict=True)]
    base = alt.Chart(alt.Data(values=along))
    return alt.layer(
        base.mark_area(opacity=0.2).encode(x=x, y=alt.Y("lo:Q", scale=scale, title=name), y2="hi:Q"),
        base.mark_line().encode(x=x, y=y),
        alt.Chart(alt.Data(values=dots)).mark_point(filled=True).encode(x=x, y=y),
        title=title,
    )
