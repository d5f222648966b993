"""Energies and forces per second, and the memory they take, at equal parameters: EScAIP against equivariant networks.

Boxes of liquid water with neighbours within 5 Å, on one thread, in float32. Neighbour lists are made beforehand. Every
side is a process of its own per box, in its own environment (`make bench-peers` builds mace-torch's), and all are asked
in turn, in random order, so that other work on the machine meets all alike. Atoms per second are from the median time
over rounds, by the processor's clock; a ratio is the median of the rounds' ratios, with the 95 % interval of that
median over resampled rounds. Memory is the peak of the process above what it held before it predicted the box.

Ours have the number of channels that brings their parameters closest to those of mace-torch's model.

Run: python -m benchmarks inference, or python -m benchmarks.inference [--rounds 10] [--atoms 21 201 2001] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any, NamedTuple

import numpy as np

from benchmarks.models import Worker, available, ratio

PARAMETERS = 57_184
ATOMS = (21, 201, 2001)
ENOUGH_ATOMS = 2000  # predicted per request, so that small boxes are timed over many


class Side(NamedTuple):
    """A model by the kind of its worker, and what that is told."""

    label: str
    kind: str
    settings: dict[str, Any]


def _ours(label: str, architecture: str, options: dict[str, Any], direct: bool = False) -> Side:
    settings = {"architecture": architecture, "options": options, "parameters": PARAMETERS, "direct": direct}
    return Side(label, "ours", settings | {"compiled": False})


ESCAIP = {"layers": 2, "edge_channels": 16}
SIDES = (
    Side(
        "mace-torch",
        "mace",
        {"options": {"max_ell": 3, "num_interactions": 2, "correlation": 3, "hidden_irreps": "16x0e+16x1o+16x2e"}},
    ),
    _ours("mace", "mace", {"layers": 2, "l_max": 2, "l_max_edge": 3, "radial_hidden": 72}),
    _ours("nequip, l_max 2", "nequip", {"layers": 3, "l_max": 2, "radial_hidden": 64}),
    _ours("escaip, gradient", "escaip", ESCAIP),
    _ours("escaip, direct", "escaip", ESCAIP, direct=True),
)


def compare(atoms: int, rounds: int) -> list[dict[str, Any]]:
    """Time all sides on a box, print the table and return it."""
    molecules, steps = atoms // 3, max(1, ENOUGH_ATOMS // atoms)
    with contextlib.ExitStack() as stack:
        workers = []
        for label, kind, settings in SIDES:
            if reason := available(kind, False, settings.get("architecture", "")):
                print(f"  {label}: skipped, {reason}", flush=True)
                continue
            workers.append(Worker(label, kind, settings | {"inference": True, "batches": [molecules]}))
            stack.callback(workers[-1].close)
        seconds, rng = np.empty((len(workers), rounds)), np.random.default_rng(0)
        for r in range(rounds):
            for w in rng.permutation(len(workers)):
                seconds[w, r] = workers[w].times(molecules, steps)["cpu"]
    ours = [w for w, worker in enumerate(workers) if worker.label.startswith("escaip")]
    header = "".join(f"{f'{workers[o].label} is faster by':>34}{'memory':>8}" for o in ours)
    print(f"\n{3 * molecules} atoms, {workers[0].about['edges'] / (3 * molecules):.1f} neighbours each")
    print(f"{'':18}{'parameters':>12}{'atoms/s':>10}{'MiB':>8}{header}")
    rows = []
    for w, worker in enumerate(workers):
        rate, memory = 3 * molecules / float(np.median(seconds[w])), worker.about["MiB"]
        faster = {workers[o].label: ratio(seconds[w], seconds[o]) for o in ours}
        smaller = {workers[o].label: workers[o].about["MiB"] / max(memory, 1e-9) for o in ours}
        cells = [f"{f'{r:.2f} ({low:.2f} to {high:.2f})':>34}" for r, low, high in faster.values()]
        cells = [cell + f"{share:8.2f}" for cell, share in zip(cells, smaller.values(), strict=True)]
        print(
            f"{worker.label:18}{worker.about['parameters']:12,d}{rate:10,.0f}{memory:8.0f}{''.join(cells)}", flush=True
        )
        figures = {"atoms per second": rate, "times slower than": faster, "memory relative to": smaller}
        rows.append({"side": worker.label, "atoms": 3 * molecules, **worker.about, **figures})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(ATOMS), help="multiples of 3")
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    rows = [row for atoms in options.atoms for row in compare(atoms, options.rounds)]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"rounds": options.rounds, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
