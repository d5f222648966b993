"""Training steps, or predictions, of an architecture of this package."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from ase import Atoms
from torch import Tensor

from benchmarks._worker import CUTOFF, ELEMENTS, NEIGHBORS, Model, serve
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.potential import Potential


def load(structures: list[Atoms]) -> tuple[Any, int]:
    """The graph batch of the data module."""
    offsets = np.cumsum([0, *map(len, structures)])
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    positions = np.concatenate([atoms.positions for atoms in structures])
    box = {"cell": np.stack([a.cell.array for a in structures]), "pbc": np.stack([a.pbc for a in structures])}
    periodic = box if box["pbc"].any() else {}
    batch = graph_batch(Ragged(offsets, {"numbers": numbers, "positions": positions}, periodic), CUTOFF)
    return batch, batch.edge_index.shape[1]


def potential(architecture: str, options: dict[str, Any], direct: bool = False) -> Potential:
    """A potential without scales, around the registered architecture."""
    backbone = registry.build(
        architecture, Inputs(ELEMENTS), NEIGHBORS, vector_output=direct, **{"cutoff": CUTOFF} | options
    )
    return Potential(backbone, (0.0,) * len(ELEMENTS), 1.0, "direct" if direct else "gradient")


def matched(architecture: str, options: dict[str, Any], parameters: int, direct: bool) -> dict[str, Any]:
    """The options with the multiple of 4 channels whose parameters come closest to a given number."""

    def count(channels: int) -> int:
        return sum(p.numel() for p in potential(architecture, options | {"channels": channels}, direct).parameters())

    widths = range(4, 512, 4)
    above = bisect_left(widths, parameters, key=count)
    closest = min(widths[max(0, above - 1) : above + 1], key=lambda channels: abs(count(channels) - parameters))
    return options | {"channels": closest}


def build(settings: dict[str, Any]) -> Model:
    """A size of the architecture, or one with `parameters` matched; `compiled` traces and compiles the evaluation."""
    name, options = settings["architecture"], settings["options"]
    options = registry.preset(name, settings["size"]) | options if "size" in settings else options
    direct = settings.get("direct", False)
    options = matched(name, options, settings["parameters"], direct) if "parameters" in settings else options
    model: Any = potential(name, options, direct)
    model.train(not settings.get("inference"))
    parameters = list(model.parameters())
    if settings["compiled"]:
        from scisci.models.compiled import CompiledPotential

        model = CompiledPotential(model)

    def predict(batch: Any) -> tuple[Tensor, Tensor]:
        output = model(batch)
        return output["energy"], output["forces"]

    return Model(load, predict, parameters, options)


if __name__ == "__main__":
    serve(build)
