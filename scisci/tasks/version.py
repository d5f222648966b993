"""The version of the code that decides a run's outcome."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path

from scisci.contracts.files import digest

PACKAGE = Path(__file__).resolve().parents[1]
DECIDES_OUTCOME = ("data", "symmetry", "models", "tasks")


@cache
def code_version() -> str:
    """Package version, a digest of the sources that decide a run's outcome, and the versions of model plug-ins."""
    files = sorted(path for folder in DECIDES_OUTCOME for path in (PACKAGE / folder).rglob("*.py"))
    own = f"{version('scisci')}+{digest(*(path.read_bytes() for path in files))[:12]}"
    plugins = {f"{point.dist.name}-{point.dist.version}" for point in entry_points(group="scisci.models") if point.dist}
    return " ".join([own, *sorted(plugins)])
