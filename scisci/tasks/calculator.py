"""Models trained here as ASE calculators, for molecular dynamics, relaxation and everything else ASE drives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models.potential import Potential
from scisci.tasks.checkpoints import load_model


class ScisciCalculator(Calculator):
    """An interatomic potential trained here, as an ASE calculator.

    Gives `energy` and `free_energy` (the same, eV), `forces` (eV/Å) and, with forces that are gradients and for cells
    periodic in all three directions, `stress` (eV/Å³, tensile positive, Voigt order). Positions, cell and neighbours
    are in `dtype` throughout: "float64" where differences of energies must be smooth, as in long dynamics. Charges and
    spins of the atoms do not enter the model. `UserError` for elements it was not trained on.

    Args:
        checkpoint: run directory of `fit` or `sweep`, its `model.safetensors` or `model.json`, or a `.ckpt`.
        device: where torch evaluates the model.
        dtype: "float32", as trained, or "float64".
        dataset: whose labels to give, for a model that was trained on several data sets at once.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float32",
        dataset: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        model = load_model(checkpoint)
        if not isinstance(model, Potential):
            raise UserError(f"{checkpoint} holds no interatomic potential; give a model trained on atoms")
        if dtype not in ("float32", "float64"):
            raise UserError(f"dtype is {dtype!r}, but must be float32 or float64")
        self.implemented_properties = ["energy", "free_energy", "forces"]
        if model.direct is None:
            self.implemented_properties.append("stress")
        self._model = model.to(device, getattr(torch, dtype)).eval().requires_grad_(False)
        self._device, self._dtype = device, np.dtype(dtype).type
        self._cutoff, self._elements = float(cast(float, model.cutoff)), model.known_elements
        self._dataset = _place(dataset, model.datasets)

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Evaluate everything the model gives at once."""
        super().calculate(atoms, properties, system_changes)
        atoms = cast(Atoms, self.atoms)
        batch = graph_batch(_ragged(atoms, self._dataset), self._cutoff, self._elements, self._dtype).to(self._device)
        outputs = {name: values.cpu().double().numpy() for name, values in self._model(batch).items()}
        energy = float(outputs["energy"][0])
        self.results = {"energy": energy, "free_energy": energy, "forces": outputs["forces"]}
        if "stress" in outputs and atoms.pbc.all():
            self.results["stress"] = full_3x3_to_voigt_6_stress(outputs["stress"][0])
        elif "stress" in (properties or ()):
            raise PropertyNotImplementedError(
                "stress needs a cell that is periodic in all directions, and forces that are gradients"
            )


def _place(dataset: str | None, datasets: tuple[str, ...]) -> int:
    """The place of a data set among those that a model was trained on; without a name, of the only one."""
    if dataset is None and len(datasets) > 1:
        raise UserError(f"the model was trained on several data sets; give dataset=, one of: {', '.join(datasets)}")
    if dataset is not None and dataset not in datasets:
        raise unknown_name("data set of the model", dataset, datasets)
    return 0 if dataset is None else datasets.index(dataset)


def _ragged(atoms: Atoms, dataset: int) -> Ragged:
    samples = {"group": np.zeros(1, dtype=np.int64), "dataset": np.array([dataset])}
    if atoms.pbc.any():
        samples |= {"cell": np.asarray(atoms.cell)[None], "pbc": atoms.pbc[None]}
    return Ragged(np.array([0, len(atoms)]), {"numbers": atoms.numbers, "positions": atoms.positions}, samples)
