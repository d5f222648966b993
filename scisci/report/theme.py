"""Colours, marks and type of the report: one set of tokens that the page's CSS and its charts share."""

from __future__ import annotations

from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'

# Okabe and Ito's blue, vermillion and green, and four more that stay apart from them without red or green.
TOKENS: dict[str, dict[str, str]] = {
    "light": {
        "page": "#ffffff",
        "surface": "#f6f7f9",
        "text": "#1b1f24",
        "muted": "#57606a",
        "line": "#d8dee4",
        "grid": "#eaeef2",
        "accent": "#0b62a8",
        "good": "#1a7f4b",
        "fair": "#8a5a00",
        "poor": "#b3372c",
    },
    "dark": {
        "page": "#14171c",
        "surface": "#1c2027",
        "text": "#e6e9ed",
        "muted": "#9aa4b0",
        "line": "#353c46",
        "grid": "#262c35",
        "accent": "#7cb8f0",
        "good": "#5fcf94",
        "fair": "#e3b35a",
        "poor": "#f08a80",
    },
}
SERIES: dict[str, list[str]] = {
    "light": ["#0072b2", "#d55e00", "#009e73", "#3d444d", "#bb66ee", "#6b3d00", "#9aa3ad"],
    "dark": ["#58aef0", "#ff9248", "#2fd0a0", "#f0f2f5", "#f0a8d8", "#f7e07a", "#8d96a0"],
}
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke"]

VERDICTS = ("identified", "weak", "not identified")
DASHES = ([1, 0], [7, 3], [2, 2])


def css_tokens(mode: str) -> str:
    """The tokens of `mode` ("light" or "dark") as CSS custom properties, series colours included."""
    series = {f"series-{i}": colour for i, colour in enumerate(SERIES[mode])}
    return "\n".join(f"  --{name}: {value};" for name, value in (TOKENS[mode] | series).items())


def vega_config(mode: str) -> dict[str, Any]:
    """The Vega-Lite config of `mode` ("light" or "dark"); colours live here alone, not in the charts."""
    token = TOKENS[mode]
    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": token["muted"], "titleColor": token["text"]}
    return {
        "background": token["page"],
        "font": FONT,
        "range": {"category": SERIES[mode], "symbol": SHAPES},
        "view": {"stroke": token["line"]},
        "title": {"color": token["text"], "subtitleColor": token["muted"], "anchor": "start"},
        "axis": {
            **text,
            "gridColor": token["grid"],
            "domain": False,
            "ticks": False,
            "labelPadding": 5,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
        },
        "header": {**text, "labelColor": token["text"], "labelFontSize": 12, "labelFontWeight": 600},
        "legend": {
            **text,
            "labelColor": token["text"],
            "titleColor": token["muted"],
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "symbolStrokeColor": token["muted"],
        },
        "rule": {"color": token["muted"]},
        "text": {"color": token["text"], "font": FONT, "fontSize": 11},
        "style": {"reference": {"color": token["muted"], "stroke": token["muted"]}},
    }
