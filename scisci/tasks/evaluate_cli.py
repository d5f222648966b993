"""`scisci evaluate`: measure any ASE calculator on the splits of a data set."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError


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
        " of the first 1,000 training samples (default: none)",
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
    import numpy as np
    from rich.progress import Progress

    from scisci.data.library import open_dataset
    from scisci.data.references import ELEMENTS
    from scisci.tasks.evaluate import Evaluator, energy_shift, evaluate, load_calculator, quantities
    from scisci.tasks.tables import show_errors

    if args.samples is not None and args.samples < 1:
        raise UserError(f"--samples is {args.samples}, but must be at least 1")
    store = open_dataset(args.data)
    splits = [store.split(name).name for name in args.split]
    calculator = load_calculator(args.calculator, dict(_option(text) for text in args.calculator_options))
    wanted = quantities(store, calculator)
    shift = energy_shift(store, calculator) if args.align == "energy" else np.zeros(ELEMENTS)
    evaluator, results = Evaluator(calculator, wanted, shift), {}
    about = {"calculator": args.calculator, "align": args.align}
    with Progress(transient=True) as bars:
        for split in splits:
            path, size = args.out / f"{split}.h5", len(store.split(split).indices(args.samples))
            progress = partial(bars.advance, bars.add_task(split, total=size))
            results[split] = evaluate(store, split, evaluator, path, args.samples, progress, **about)
            print(f"wrote {path}")
    show_errors(results, list(next(iter(results.values()))))
    if args.align == "energy":
        fitted = {int(z): float(shift[z]) for z in np.flatnonzero(np.isfinite(shift))}
        told = ", ".join(f"{z}: {value:.6g}" for z, value in fitted.items())
        print(f"energies were shifted by a constant per element, fitted on 'train' (eV by atomic number: {told})")
    else:
        print("energies are the calculator's own; '--align energy' takes another zero of energy per element out")
