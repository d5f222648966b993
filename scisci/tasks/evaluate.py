"""`scisci evaluate`: measure any ASE calculator on the splits of a data set, as if it had been trained here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

from scisci.contracts.errors import UserError
from scisci.contracts.run import MetricValue
from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.ragged import Ragged
from scisci.data.references import ELEMENTS, ReferenceFit
from scisci.data.store import Store
from scisci.tasks.metrics import Accumulator, potential_errors
from scisci.tasks.predictions import writing_predictions
from scisci.tasks.tables import show_errors

BATCH = 256
ALIGNMENT_SAMPLES = 1000


def load_calculator(factory: str, options: dict[str, Any]) -> BaseCalculator:
    """Import "module:factory", from the working folder too, and call it with `options`; the result calculates."""
    module, _, name = factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot load {factory}: {error}; give module:factory as Python would import it") from error
    try:
        calculator = make(**options)
    except TypeError as error:
        raise UserError(f"{factory} cannot be called: {error}; correct --calculator-options") from error
    if not isinstance(calculator, BaseCalculator):
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

    calculator: BaseCalculator
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


def quantities(store: Store, calculator: BaseCalculator) -> tuple[str, ...]:
    """What is asked of a calculator: energy, forces, and stress where the data and the calculator have it."""
    if store.domain != "atoms" or not {"energy", "forces"} <= set(store.fields):
        raise UserError(f"{store.path} has no atoms with energy and forces; choose another data set")
    if absent := [name for name in ("energy", "forces") if name not in calculator.implemented_properties]:
        raise UserError(f"the calculator cannot compute {' or '.join(absent)}; give one that can")
    stress = "stress" in store.fields and "stress" in calculator.implemented_properties
    return ("energy", "forces", "stress") if stress else ("energy", "forces")


def batches(store: Store, split: str, samples: int | None) -> Iterator[tuple[np.ndarray, Ragged, list[str]]]:
    """The first `samples` of a split in stored order, few at a time: their indices, content and names in messages."""
    indices = store.split(split).indices(samples)
    for start in range(0, len(indices), BATCH):
        ids = indices[start : start + BATCH]
        names = [f"sample {start + k} of split {split!r}" for k in range(len(ids))]
        yield ids, store.take(ids), names


def energy_shift(store: Store, calculator: BaseCalculator) -> np.ndarray:
    """[119] eV per element by which `calculator` differs from the labels of the first 1,000 training samples.

    A least-squares fit; NaN for elements that do not occur there. No test sample enters.
    """
    evaluator, fit = Evaluator(calculator, ("energy", "forces"), np.zeros(ELEMENTS)), ReferenceFit()
    for _, ragged, names in batches(store, "train", ALIGNMENT_SAMPLES):
        differences = ragged.samples["energy"] - evaluator.outputs(ragged, names)["energy"]
        for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
            fit.add(ragged.items["numbers"][a:b], differences[k])
    return fit.solve()


def evaluate(
    store: Store, split: str, evaluator: Evaluator, path: Path, samples: int | None = None, **attributes: str
) -> dict[str, MetricValue]:
    """Write a calculator's predictions for a split to `path`; returns its errors with standard errors."""
    errors = Accumulator(potential_errors)
    with writing_predictions(path, store.fingerprint, split, **attributes) as writer:
        for ids, ragged, names in batches(store, split, samples):
            found = evaluator.outputs(ragged, names)
            forces = {"forces": found.pop("forces")}
            writer.append(ids, ragged.lengths, found, forces)
            tensors = {name: torch.from_numpy(values) for name, values in {**found, **forces}.items()}
            errors.update(tensors, graph_batch(ragged, cutoff=0))
    return errors.compute()


def parser() -> argparse.ArgumentParser:
    """The options of `scisci evaluate`."""
    top = argparse.ArgumentParser(
        prog="scisci evaluate",
        description="Measure any ASE calculator on splits of a data set, and write the same predictions file as"
        " 'scisci predict'. The calculator is your own code: the module that you name is imported, also from the"
        " working folder, and the factory in it is called with the options.",
    )
    top.add_argument("--calculator", required=True, metavar="MODULE:FACTORY", help="e.g. tblite.ase:TBLite")
    top.add_argument("--calculator-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    top.add_argument("--data", required=True, metavar="NAME", help="name of a data set, or path of a store")
    top.add_argument("--split", required=True, nargs="+", metavar="SPLIT", help="one or more splits")
    top.add_argument("--samples", type=int, metavar="N", help="only the first N samples of each (default: all)")
    top.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(default: predictions)")
    top.add_argument(
        "--align",
        choices=["none", "energy"],
        default="none",
        help="codes differ in their zero of energy: 'energy' first adds one constant per element, fitted to the labels"
        f" of the first {ALIGNMENT_SAMPLES:,} training samples (default: none)",
    )
    return top


def _option(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if not (key and value):
        raise UserError(f"--calculator-options {text} is not understood; write it as KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def main(argv: list[str]) -> None:
    """Run `scisci evaluate`."""
    args = parser().parse_args(argv)
    if args.samples is not None and args.samples < 1:
        raise UserError(f"--samples is {args.samples}, but must be at least 1")
    store = open_dataset(args.data)
    splits = [store.split(name).name for name in args.split]
    calculator = load_calculator(args.calculator, dict(_option(text) for text in args.calculator_options))
    wanted = quantities(store, calculator)
    shift = energy_shift(store, calculator) if args.align == "energy" else np.zeros(ELEMENTS)
    evaluator, results = Evaluator(calculator, wanted, shift), {}
    for split in splits:
        path = args.out / f"{split}.h5"
        attributes = {"calculator": args.calculator, "align": args.align}
        results[split] = evaluate(store, split, evaluator, path, args.samples, **attributes)
        print(f"wrote {path}")
    show_errors(results, list(next(iter(results.values()))))
    if args.align == "energy":
        fitted = {int(z): float(shift[z]) for z in np.flatnonzero(np.isfinite(shift))}
        told = ", ".join(f"{z}: {value:.6g}" for z, value in fitted.items())
        print(f"energies were shifted by a constant per element, fitted on 'train' (eV by atomic number: {told})")
    else:
        print("energies are the calculator's own; '--align energy' takes another zero of energy per element out")
