"""Any ASE calculator measured on the splits of a data set, as if it had been trained here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from scisci.contracts.errors import UserError
from scisci.contracts.run import MetricValue
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.data.references import ELEMENTS, ReferenceFit
from scisci.data.store import Store
from scisci.tasks.factories import made_by
from scisci.tasks.metrics import Accumulator, potential_errors
from scisci.tasks.predictions import writing_predictions

BATCH = 32
ALIGNMENT_SAMPLES = 1000


def load_calculator(factory: str, options: dict[str, Any]) -> Any:
    """Import "module:factory", from the working folder too, and call it with `options`; the result calculates."""
    calculator = made_by(factory, options, "--calculator-options")
    if not all(hasattr(calculator, method) for method in ("get_potential_energy", "get_forces")):
        raise UserError(f"{factory} gives a {type(calculator).__name__}; give what returns an ASE calculator")
    return calculator


def structures(ragged: Ragged) -> Iterator[Atoms]:
    """The samples as ASE atoms.

    Where the data say them, charge and spin are in `info` (`charge`, and `spin` as the multiplicity 2S + 1, as fairchem
    and MACE read them) and, spread evenly over the atoms, in the initial charges and magnetic moments.
    """
    for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
        one = {name: values[k] for name, values in ragged.samples.items()}
        atoms = Atoms(ragged.items["numbers"][a:b], ragged.items["positions"][a:b])
        if "cell" in one:
            atoms.set_cell(one["cell"])
            atoms.set_pbc(one["pbc"])
        if "charge" in one:
            atoms.info["charge"] = int(one["charge"])
            atoms.set_initial_charges(np.full(b - a, one["charge"] / (b - a)))
        if "spin" in one:
            atoms.info["spin"] = int(one["spin"]) + 1
            atoms.set_initial_magnetic_moments(np.full(b - a, one["spin"] / (b - a)))
        yield atoms


@dataclass(frozen=True)
class Evaluator:
    """A calculator with the quantities asked of it, and the energy per element [119] eV that is added to its own."""

    calculator: Any
    quantities: tuple[str, ...]
    shift: np.ndarray

    def outputs(self, ragged: Ragged, names: list[str]) -> dict[str, np.ndarray]:
        """`energy` [n] eV, `forces` [N, 3] eV/Å and, if asked, `stress` [n, 3, 3] eV/Å³ of samples called `names`."""
        found: dict[str, list[Any]] = {quantity: [] for quantity in self.quantities}
        for atoms, name in zip(structures(ragged), names, strict=True):
            for quantity, value in self._calculate(atoms, name).items():
                found[quantity].append(value)
        return {
            quantity: np.concatenate(values) if quantity == "forces" else np.array(values)
            for quantity, values in found.items()
        }

    def _calculate(self, atoms: Atoms, name: str) -> dict[str, Any]:
        atoms.calc = self.calculator
        where = f"{name} ({atoms.get_chemical_formula()})"
        try:
            found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            if "stress" in self.quantities:
                periodic = atoms.pbc.all()
                found["stress"] = atoms.get_stress(voigt=False) if periodic else np.full((3, 3), np.nan)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except PropertyNotImplementedError as error:
            raise UserError(
                f"the calculator has no {error} for {where}; give one that has energy and forces"
            ) from error
        except Exception as error:  # a calculator is anybody's code, and this says which structure it failed on
            raise UserError(
                f"the calculator failed on {where}: {type(error).__name__}: {' '.join(str(error).split())}; leave that"
                " sample out or give another calculator"
            ) from error
        found["energy"] += (shift := self.shift[atoms.numbers].sum())
        if np.isnan(shift):
            raise UserError(f"{where} has an element that the training samples lack; leave out --align energy")
        if not (np.isfinite(found["energy"]) and np.isfinite(found["forces"]).all()):
            raise UserError(f"the calculator's energy or forces of {where} are not finite; give another calculator")
        return found


def quantities(store: Store, calculator: Any) -> tuple[str, ...]:
    """What is asked of a calculator: energy, forces, and stress where the data and the calculator have it.

    Of crystals without any labels, stress too.
    """
    known = {"energy", "forces"} & set(store.fields)
    if store.domain != "atoms" or len(known) == 1:
        raise UserError(f"{store.path} has no atoms with energy and forces; choose another data set")
    # Not every calculator derives from ASE's own class, which says what it can compute.
    able = getattr(calculator, "implemented_properties", ("energy", "forces"))
    if absent := [name for name in ("energy", "forces") if name not in able]:
        raise UserError(f"the calculator cannot compute {' or '.join(absent)}; give one that can")
    stress = ("stress" if known else "cell") in store.fields and "stress" in able
    return ("energy", "forces", "stress") if stress else ("energy", "forces")


def batches(store: Store, split: str, samples: int | None) -> Iterator[tuple[np.ndarray, Ragged, list[str]]]:
    """The first `samples` of a split in stored order, few at a time: their indices, content and names in messages."""
    indices = store.split(split).indices(samples)
    for start in range(0, len(indices), BATCH):
        ids = indices[start : start + BATCH]
        names = [f"sample {start + k} of split {split!r}" for k in range(len(ids))]
        yield ids, store.take(ids), names


def energy_shift(store: Store, calculator: Any) -> np.ndarray:
    """[119] eV per element by which `calculator` differs from the labels of the first 1,000 training samples.

    A least-squares fit; NaN for elements that do not occur there. No test sample enters. `UserError` where data sets
    were combined, whose labels no single shift fits.
    """
    if store.datasets:
        raise UserError(f"{store.path} combines {', '.join(store.datasets)}; align energies on one of them at a time")
    evaluator, fit = Evaluator(calculator, ("energy", "forces"), np.zeros(ELEMENTS)), ReferenceFit()
    for _, ragged, names in batches(store, "train", ALIGNMENT_SAMPLES):
        differences = ragged.samples["energy"] - evaluator.outputs(ragged, names)["energy"]
        for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
            fit.add(ragged.items["numbers"][a:b], differences[k])
    return fit.solve()


def evaluate(
    store: Store,
    split: str,
    evaluator: Evaluator,
    path: Path,
    samples: int | None = None,
    progress: Callable[[int], None] | None = None,
    **attributes: str,
) -> dict[str, MetricValue]:
    """Write a calculator's predictions for a split to `path`; returns its errors with standard errors.

    There are none where the store has no labels. `progress` is told the number of samples that have been computed since
    it was last told; `attributes` are written into the file. Memory: the samples of one batch, and a few numbers per
    sample for the standard errors.
    """
    errors, labelled = Accumulator(potential_errors), "forces" in store.fields
    with writing_predictions(path, store.fingerprint, split, **attributes) as writer:
        for ids, ragged, names in batches(store, split, samples):
            found = evaluator.outputs(ragged, names)
            # In the precision of the file, so that the errors are those of what it holds.
            forces = {"forces": found.pop("forces").astype(np.float32)}
            writer.append(ids, ragged.lengths, found, forces)
            if labelled:
                tensors = {name: torch.from_numpy(values) for name, values in {**found, **forces}.items()}
                errors.update(tensors, graph_batch(ragged, cutoff=0))
            if progress is not None:
                progress(len(ids))
    return errors.compute() if labelled else {}
