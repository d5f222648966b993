"""What the site calls splits, axes, domains and models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scisci.report.study import Split

AXES = {"params": "parameters", "data": "training samples", "flops": "training FLOPs"}
DOMAINS = {
    "atoms": "Atoms",
    "particles": "Particles",
    "cloud": "Point clouds",
    "tree": "Merger trees",
    "series": "Time series",
}


def split_label(split: str) -> str:
    """A split as the report's headings show it: "ID · test", "OOD · 600K"."""
    return Split(split, None).label


def labels(models: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What to call each model, by its slug: its name, with the slug where another has the same name."""
    pairs = list(models)
    times = Counter(name for _, name in pairs)
    return {slug: name if times[name] == 1 else f"{name} ({slug})" for slug, name in pairs}
