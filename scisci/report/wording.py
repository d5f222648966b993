"""How the report writes names and numbers: as many digits as their uncertainty supports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
NORMAL_95 = 1.959963984540054  # two-sided 95 % point of the standard normal


def series_name(architecture: str, treatment: str | None) -> str:
    """An architecture as charts and tables call it: its name, with the treatment where there is one."""
    return architecture if treatment in (None, "none") else f"{architecture} + {treatment}"


def significant(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits; powers of ten where a plain decimal would be hard to read."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power <= 5:
        return f"{float(f'{mantissa}e{power}'):,.{max(0, digits - 1 - power)}f}"
    return f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}"


def with_error(value: float, se: float | None) -> str:
    """`value ± 1.96 se`, both to the second significant digit of the half-width; `value` alone without."""
    if se is None or not math.isfinite(se) or se <= 0:
        return significant(value)
    half = NORMAL_95 * se
    decimals = 1 - math.floor(math.log10(half))
    if not 0 <= decimals <= 6:
        return f"{significant(value, 4)} ± {significant(half, 2)}"
    return f"{value:,.{decimals}f} ± {half:,.{decimals}f}"


def short(count: float | None) -> str:
    """A count as people say it: 950, 16.4k, 1.05M; a dash where it is not known."""
    if count is None or not math.isfinite(count):
        return "–"
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= 0.9995 * scale:
            return f"{count / scale:.3g}{suffix}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3.5 min, 7.2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def counted(number: int, noun: str) -> str:
    """A number of things: 1 run, 2,048 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def sharing(shared: Iterable[bool | None]) -> str:
    """During how many finished runs other processes used the device; empty where each had it to itself."""
    known = list(shared)
    yes, unknown = known.count(True), known.count(None)
    said = [f"used the device during {yes:,}"] if yes else []
    if unknown:
        said.append(f"may have {'' if yes else 'used the device '}during {unknown:,}")
    return f"other processes {' and '.join(said)} of {counted(len(known), 'finished run')}" if said else ""


def ends_in_words(ends: Mapping[str, int]) -> str:
    """How runs ended, from the number of runs of each status."""
    others = [f"{count:,} {end.replace('_', ' ')}" for end, count in sorted(ends.items()) if end != "ok"]
    if others:
        return listed([f"{ends.get('ok', 0):,} finished", *others])
    return "it finished" if ends.get("ok") == 1 else "all of them finished"


def merged(texts: Iterable[str]) -> list[str]:
    """Texts without repetition; of those that differ in whole numbers alone, one with their ranges."""
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    for text in texts:
        alike.setdefault(tuple(re.split(r"\d+", text)), []).append(re.findall(r"\d+", text))
    said = []
    for between, numbers in alike.items():
        found = [sorted(set(column), key=int) for column in zip(*numbers, strict=True)]
        words = [" to ".join(dict.fromkeys((values[0], values[-1]))) for values in found]
        said.append("".join(part for pair in zip(between, [*words, ""], strict=True) for part in pair))
    return said


def unsigned_zeros(text: str) -> str:
    """`text` without the sign of numbers that are rounded to zero."""
    return re.sub(r"-(0\.0*)(?!\d)", r"\1", text)


def listed(words: list[str]) -> str:
    """Words as a sentence lists them: a; a and b; a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def capital(text: str) -> str:
    """`text` with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def unbroken(text: str) -> str:
    """`text` with its intervals, "[0.1, 0.2]" and "3 ± 1", kept on one line."""
    return re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\u00a0"), text).replace(" ± ", "\u00a0±\u00a0")


def log_ticks(low: float, high: float) -> list[float]:
    """Round values inside [low, high] for a log axis, never more than about seven of them."""
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3.2 else (1,)
    stride = max(1, math.ceil(decades / 6))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers if power % stride == 0 for step in steps]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return inside if len(inside) > 2 else linear_ticks(low, high)


def linear_ticks(low: float, high: float) -> list[float]:
    """Three to eight round values inside [low, high], evenly spaced."""
    power = math.floor(math.log10((high - low) / 3))
    step = max(round(m * 10.0**power, 15 - power) for m in (1, 2, 5) if m * 10.0**power <= (high - low) / 3)
    return [round(k * step, max(0, 1 - power)) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def formula(latex: str) -> str:
    """A law's LaTeX formula as plain text: "L = A N^{-\\alpha}" becomes "L = A N^(−α)"."""
    text = re.sub(r"\\([a-z]+)", lambda found: _GREEK.get(found[1], found[0]), latex)
    return re.sub(r"\^\{([^{}]*)\}", r"^(\1)", text).replace("-", "−")


_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "kappa": "κ", "lambda": "λ", "infty": "∞"}
