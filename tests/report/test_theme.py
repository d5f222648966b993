"""Colours are legible and stay apart for readers who do not see all hues."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from scisci.report.theme import SERIES, SHAPES, TOKENS, css_tokens, vega_config

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
MACHADO = {
    "protanopia": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "deuteranopia": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.01182 0.04294 0.968881",
}
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio."""
    low, high = sorted(float(RGB_TO_XYZ[1] @ linear(c)) + 0.05 for c in (a, b))
    return high / low


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65."""
    x, y, z = np.cbrt(np.maximum(RGB_TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_marks_stand_out_from_the_page(mode: str) -> None:
    token = TOKENS[mode]
    for ground in ("page", "surface"):
        for name in ("text", "muted", "accent", "fair", "poor"):
            assert contrast(token[name], token[ground]) >= 4.5, (name, ground)
    for colour in SERIES[mode][:5]:
        assert contrast(colour, token["page"]) >= 2.9, colour


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("seen", ["normal", "protanopia", "deuteranopia"])
def test_architectures_stay_apart(mode: str, seen: str) -> None:
    matrix = np.eye(3) if seen == "normal" else np.array(MACHADO[seen].split(), float).reshape(3, 3)
    colours = {colour: lab(matrix @ linear(colour)) for colour in SERIES[mode]}
    for a, b in combinations(SERIES[mode][:4], 2):
        assert np.linalg.norm(colours[a] - colours[b]) > 24, (a, b)
    for a, b in combinations(SERIES[mode], 2):
        assert np.linalg.norm(colours[a] - colours[b]) > 15, (a, b)


def test_colour_and_mark_together_name_many_series() -> None:
    pairs = {(i % len(SERIES["light"]), i % len(SHAPES)) for i in range(56)}
    assert len(pairs) == 56
    assert len(SERIES["light"]) == len(SERIES["dark"])


def test_both_modes_define_the_same_tokens() -> None:
    names = [{line.split(":")[0].strip() for line in css_tokens(mode).splitlines()} for mode in TOKENS]
    assert names[0] == names[1]
    light, dark = vega_config("light"), vega_config("dark")
    assert light.keys() == dark.keys()
    assert light["background"] != dark["background"]
