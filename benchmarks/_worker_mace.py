"""Training steps, or predictions, of the mace-torch package, eager as its users train it; run in `.venv-peers-mace`."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from benchmarks._worker import CUTOFF, ELEMENTS, NEIGHBORS, Model, serve

# The package's e3nn 0.4.4 keeps its constants in a file of tensors and slices, which torch loads only if told so.
torch.serialization.add_safe_globals([slice])

from e3nn import o3  # noqa: E402

with contextlib.redirect_stdout(sys.stderr):  # the driver reads replies from stdout, and the package greets there
    from mace import data, modules, tools


def load(structures: list[Atoms]) -> tuple[Any, int]:
    """Configurations with their neighbours, batched by the package's loader."""
    table = tools.AtomicNumberTable(list(ELEMENTS))
    configurations = [data.config_from_atoms(atoms) for atoms in structures]
    frames = [data.AtomicData.from_config(c, z_table=table, cutoff=CUTOFF) for c in configurations]
    loader = tools.torch_geometric.dataloader.DataLoader(frames, batch_size=len(frames), shuffle=False)
    batch = next(iter(loader)).to_dict()
    return batch, batch["edge_index"].shape[1]


def build(settings: dict[str, Any]) -> Model:
    """The package's ScaleShiftMACE as its command line builds it by default, but for the options given."""
    torch.set_default_dtype(torch.float32)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    options = settings["options"] | {"hidden_irreps": o3.Irreps(settings["options"]["hidden_irreps"])}
    model = modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_elements=len(ELEMENTS),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=NEIGHBORS,
        atomic_numbers=list(ELEMENTS),
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        **options,
    )

    def predict(batch: Any) -> tuple[Tensor, Tensor]:
        output = model(batch.copy(), training=not settings.get("inference"), compute_force=True)
        return output["energy"], output["forces"]

    return Model(load, predict, list(model.parameters()), settings["options"])


if __name__ == "__main__":
    serve(build)
