"""Training steps of the nequip package, eager or with its train-time compilation; run in `.venv-peers`."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state
from torch import Tensor

from benchmarks._worker import CUTOFF, ELEMENTS, NEIGHBORS, Model, serve

SYMBOLS = [chemical_symbols[number] for number in ELEMENTS]


def load(structures: list[Atoms]) -> tuple[Any, int]:
    """Frames with their neighbours, batched as the package's loader does."""
    to_types, to_edges = ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(CUTOFF, backend="ase")
    batch = AtomicDataDict.batched_from_list([to_edges(to_types(from_ase(atoms))) for atoms in structures])
    return batch, AtomicDataDict.num_edges(batch)


def build(settings: dict[str, Any]) -> Model:
    """The package's own builder; `compiled` chooses its `compile_mode: compile`."""
    set_global_state()
    model = NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        compile_mode="compile" if settings["compiled"] else "eager",
        r_max=CUTOFF,
        type_names=SYMBOLS,
        avg_num_neighbors=NEIGHBORS,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=dict.fromkeys(SYMBOLS, 0.0),
        **settings["options"],
    )
    model.train()

    def predict(batch: Any) -> tuple[Tensor, Tensor]:
        output = model(batch.copy())
        return output[AtomicDataDict.TOTAL_ENERGY_KEY].flatten(), output[AtomicDataDict.FORCE_KEY]

    return Model(load, predict, [p for p in model.parameters() if p.requires_grad], settings["options"])


if __name__ == "__main__":
    serve(build)
