"""`scisci evaluate`: measure any ASE calculator or GluonTS predictor on the splits of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    from scisci.contracts.run import MetricValue
    from scisci.data.store import Store

CONTEXT, HORIZON = 512, 96


@dataclass(frozen=True)
class Measuring:
    """How many systems or windows a split has, what measures it and writes a file, and what is to be said of it."""

    count: Callable[[str], int]
    measure: Callable[[str, Path, Callable[[int], None]], dict[str, MetricValue]]
    remark: str


def parser() -> argparse.ArgumentParser:
    """The options of `scisci evaluate`."""
    top = argparse.ArgumentParser(
        prog="scisci evaluate",
        description="Measure any ASE calculator (atoms) or GluonTS predictor (time series) on splits of a data set,"
        " and write the same predictions file as 'scisci predict'. Either is your own code: the module that you name"
        " is imported, also from the working folder, and the factory in it is called with the options.",
    )
    kind = top.add_mutually_exclusive_group(required=True)
    kind.add_argument("--calculator", metavar="MODULE:FACTORY", help="e.g. tblite.ase:TBLite")
    kind.add_argument(
        "--predictor",
        metavar="MODULE:FACTORY",
        help="e.g. gluonts.model.seasonal_naive:SeasonalNaivePredictor; the factory is given the horizon as"
        " prediction_length",
    )
    top.add_argument("--data", required=True, metavar="NAME", help="name of a data set, or path of a store")
    top.add_argument("--split", required=True, nargs="+", metavar="SPLIT", help="one or more splits")
    top.add_argument("--samples", type=int, metavar="N", help="only the first N samples of each (default: all)")
    top.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(default: predictions)")
    atoms = top.add_argument_group("of calculators")
    atoms.add_argument("--calculator-options", nargs="+", action="extend", metavar="KEY=VALUE")
    atoms.add_argument(
        "--align",
        choices=["none", "energy"],
        help="codes differ in their zero of energy: 'energy' first adds one constant per element, fitted to the labels"
        " of the first 1,000 training samples (default: none)",
    )
    series = top.add_argument_group("of predictors")
    series.add_argument("--predictor-options", nargs="+", action="extend", metavar="KEY=VALUE")
    series.add_argument("--context", type=int, metavar="STEPS", help=f"steps it is given (default: {CONTEXT})")
    series.add_argument("--horizon", type=int, metavar="STEPS", help=f"steps it forecasts (default: {HORIZON})")
    series.add_argument(
        "--together", action="store_true", default=None, help="give it all channels of a series at once, not one by one"
    )
    return top


def _check(args: argparse.Namespace) -> None:
    of = {
        "calculator": ("calculator_options", "align"),
        "predictor": ("predictor_options", "context", "horizon", "together"),
    }
    other = "predictor" if args.calculator else "calculator"
    for name in of[other]:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} goes with --{other}; leave it out")
    for name in ("samples", "context", "horizon"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise UserError(f"--{name} is {number}, but must be at least 1")


def _calculator(args: argparse.Namespace, store: Store) -> Measuring:
    import numpy as np

    from scisci.data.references import ELEMENTS
    from scisci.tasks.evaluate import Evaluator, energy_shift, evaluate, load_calculator, quantities

    align = args.align or "none"
    calculator = load_calculator(args.calculator, _options(args.calculator_options, "--calculator-options"))
    wanted = quantities(store, calculator)
    shift = energy_shift(store, calculator) if align == "energy" else np.zeros(ELEMENTS)
    evaluator, about = Evaluator(calculator, wanted, shift), {"calculator": args.calculator, "align": align}
    if align == "energy":
        fitted = {int(z): float(shift[z]) for z in np.flatnonzero(np.isfinite(shift))}
        told = ", ".join(f"{z}: {value:.6g}" for z, value in fitted.items())
        remark = f"energies were shifted by a constant per element, fitted on 'train' (eV by atomic number: {told})"
    else:
        remark = "energies are the calculator's own; '--align energy' takes another zero of energy per element out"
    return Measuring(
        lambda split: len(store.split(split).indices(args.samples)),
        lambda split, path, progress: evaluate(store, split, evaluator, path, args.samples, progress, **about),
        remark,
    )


def _predictor(args: argparse.Namespace, store: Store) -> Measuring:
    from scisci.tasks.evaluate_series import Forecaster, check, evaluate, load_predictor

    check(store)
    context, horizon = args.context or CONTEXT, args.horizon or HORIZON
    options = _options(args.predictor_options, "--predictor-options")
    predictor = load_predictor(args.predictor, horizon, options)
    forecaster = Forecaster(predictor, context, horizon, bool(args.together))
    about = {"predictor": args.predictor, "context": str(context), "horizon": str(horizon)}
    return Measuring(
        lambda split: len(forecaster.windows(store, split, args.samples)),
        lambda split, path, progress: evaluate(store, split, forecaster, path, args.samples, progress, **about),
        f"forecasts of {horizon} steps from at most {context} before them,"
        f" {'all channels at once' if args.together else 'every channel by itself'}",
    )


def _options(texts: list[str] | None, flag: str) -> dict[str, Any]:
    from scisci.tasks.factories import option

    return dict(option(text, flag) for text in texts or [])


def main(argv: list[str]) -> None:
    """Run `scisci evaluate`."""
    args = parser().parse_args(argv)
    _check(args)
    from rich.progress import Progress

    from scisci.data.library import open_dataset
    from scisci.tasks.tables import show_errors

    store, results = open_dataset(args.data), {}
    splits = [store.split(name).name for name in args.split]
    measuring = (_calculator if args.calculator else _predictor)(args, store)
    with Progress(transient=True) as bars:
        for split in splits:
            path = args.out / f"{split}.h5"
            progress = partial(bars.advance, bars.add_task(split, total=measuring.count(split)))
            results[split] = measuring.measure(split, path, progress)
            print(f"wrote {path}")
    if names := list(dict.fromkeys(name for metrics in results.values() for name in metrics)):
        show_errors(results, names)
    else:
        print(f"{store.path} has no labels, and so nothing was measured")
    print(measuring.remark)
