"""What measured symmetry errors amount to: estimates with intervals, distributions, worst case and angles, as rows.

With e the squared error of one sample under one element, s the squared size of f(x) and c the number of its entries,
the relative error of the split is sqrt(sum e / sum s), and that of one sample under one element is
r = sqrt(e / c) / sqrt(sum s / sum c): in units of the rms of f over the split, so that a sample at equilibrium, where
f(x) is near zero, does not outweigh the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scisci.symmetry.measure import Errors

LEVEL = 0.95
RESAMPLES = 1000
NUMBERS_AT_ONCE = 2**20
FEWEST = 5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ANGLES = np.arange(0.0, 181.0, 30.0)
Row = dict[str, Any]


def interval(errors: np.ndarray, signals: np.ndarray, units: np.ndarray | None = None, seed: int = 0) -> Row:
    """The 95 % interval (`low`, `high`) of sqrt(sum errors / sum signals) over sampling units.

    `errors` and `signals` [n] are sums of squares per sample; `units` [n] says which samples are drawn together, by
    default each alone. Studentised bootstrap of the logarithm of the ratio (Efron and Tibshirani 1993, section 12.5),
    with the linearised standard error; `None` for fewer than 5 units. An error of exactly zero in all of them has the
    interval [0, 0].
    """
    if units is not None:
        _, number = np.unique(units, return_inverse=True)
        errors, signals = np.bincount(number, errors), np.bincount(number, signals)
    n = len(errors)
    if n < FEWEST:
        return {"low": None, "high": None}
    if not errors.any():
        return {"low": 0.0, "high": 0.0}
    centre, spread = _log_ratio(errors, signals)
    if spread == 0:
        return {"low": float(np.exp(centre / 2)), "high": float(np.exp(centre / 2))}
    rng, drawn = np.random.default_rng(seed), []
    for block in np.array_split(np.arange(RESAMPLES), -(-RESAMPLES * n // NUMBERS_AT_ONCE)):
        chosen = rng.integers(n, size=(len(block), n))
        with np.errstate(divide="ignore", invalid="ignore"):
            found, se = _log_ratio(errors[chosen], signals[chosen])
            drawn.append((found - centre) / se)
    studentised = np.concatenate(drawn)
    # A resample of one unit alone has no spread, and says nothing.
    tails = np.quantile(studentised[np.isfinite(studentised)], [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    low, high = np.exp((centre - tails * spread) / 2)
    return {"low": float(low), "high": float(high)}


def _log_ratio(errors: np.ndarray, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the ratio of sums over the last axis, and its linearised standard error."""
    total, n = errors.sum(axis=-1), errors.shape[-1]
    ratio = total / signals.sum(axis=-1)
    residuals = errors - ratio[..., None] * signals
    return np.log(ratio), np.sqrt(np.square(residuals).sum(axis=-1) * n / (n - 1)) / total


def estimate(errors: np.ndarray, signals: np.ndarray, units: np.ndarray) -> Row:
    """sqrt(sum errors / sum signals), with intervals over samples and over groups of samples."""
    over = interval(errors, signals, units)
    value = float(np.sqrt(errors.sum() / signals.sum()))
    return {
        "value": value,
        **interval(errors, signals),
        "low_groups": over["low"],
        "high_groups": over["high"],
        "samples": len(errors),
    }


def variance_components(values: np.ndarray) -> tuple[float, float | None]:
    """Standard deviations between samples and between elements on one sample, of values [n, K].

    The one-way random-effects estimates (Searle, Casella and McCulloch 1992, section 3.3), with a negative variance
    between samples as zero; with one element the two cannot be told apart, and the second is `None`.
    """
    elements = values.shape[1]
    if elements == 1:
        return float(values.std(ddof=1)), None
    within = values.var(axis=1, ddof=1).mean()
    between = max(0.0, values.mean(axis=1).var(ddof=1) - within / elements)
    return float(np.sqrt(between)), float(np.sqrt(within))


def angles(matrices: np.ndarray) -> np.ndarray:
    """Angles [...] in degrees, 0 to 180, by which the rotations in orthogonal matrices [..., 3, 3] turn."""
    trace = np.trace(matrices, axis1=-2, axis2=-1) * np.sign(np.linalg.det(matrices))
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def summary(errors: Errors) -> list[Row]:
    """All rows for one quantity under one group.

    Each row has a `statistic` and a `value`; `at` is a quantile's level or the middle of an angle's bin in degrees.
    Relative to an f that is zero on all samples there is nothing to say, and only the absolute error has a row.
    """
    mean, entries = errors.squares.mean(axis=1), errors.entries
    counted = {"samples": len(mean), "elements": errors.squares.shape[1]}
    rows: list[Row] = [{"statistic": "absolute", **estimate(mean, entries, errors.groups)}]
    if errors.signals.any():
        rows += _relative(errors, mean)
    return [counted | row for row in rows]


def _relative(errors: Errors, mean: np.ndarray) -> Iterator[Row]:
    yield {"statistic": "relative", **estimate(mean, errors.signals, errors.groups)}
    if errors.missed is not None:
        yield {"statistic": "over_label_error", **estimate(mean, errors.missed, errors.groups)}
    scale = np.sqrt(errors.signals.sum() / errors.entries.sum())
    relative = np.sqrt(errors.squares / errors.entries[:, None]) / scale
    per_sample = np.sqrt(np.square(relative).mean(axis=1))
    for statistic, values in (("sample_quantile", per_sample), ("element_quantile", relative)):
        yield from ({"statistic": statistic, "at": q, "value": float(np.quantile(values, q))} for q in QUANTILES)
    if len(relative) > 1:
        between, within = variance_components(relative)
        yield {"statistic": "sd_between_samples", "value": between}
        if within is not None:
            yield {"statistic": "sd_between_elements", "value": within}
    yield _worst(errors, relative)
    yield from _by_angle(errors)


def _worst(errors: Errors, relative: np.ndarray) -> Row:
    sample, element = np.unravel_index(np.argmax(relative), relative.shape)
    parts = {"matrix": errors.matrices, "shift": errors.shifts}
    return {
        "statistic": "worst",
        "value": float(relative[sample, element]),
        "sample": int(errors.samples[sample]),
        **{
            name: " ".join(f"{x:.6g}" for x in drawn[sample, element].ravel())
            for name, drawn in parts.items()
            if drawn is not None
        },
    }


def _by_angle(errors: Errors) -> Iterator[Row]:
    """The relative error in bins of the angle of rotation: sums over the pairs of sample and element in each."""
    if errors.matrices is None or not (turned := angles(errors.matrices)).any():
        return
    bins = np.clip(np.digitize(turned, ANGLES) - 1, 0, len(ANGLES) - 2)
    for number, middle in enumerate((ANGLES[:-1] + ANGLES[1:]) / 2):
        inside = bins == number
        some = inside.any(axis=1)
        if some.any():
            squares = (errors.squares * inside).sum(axis=1)[some]
            signals = (errors.signals * inside.sum(axis=1))[some]
            yield {"statistic": "angle", "at": float(middle), **estimate(squares, signals, errors.groups[some])}
