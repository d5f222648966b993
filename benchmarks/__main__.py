"""Run benchmarks: `python -m benchmarks` runs all, `python -m benchmarks loading` one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ALL = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main() -> None:
    """Run the named benchmarks, each as its own script."""
    names = sys.argv[1:] or ALL
    if unknown := set(names) - set(ALL):
        sys.exit(f"unknown benchmark {sorted(unknown)[0]!r}; choose from {', '.join(ALL)}")
    for name in names:
        print(f"\n== {name}", flush=True)
        sys.argv = [name]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
