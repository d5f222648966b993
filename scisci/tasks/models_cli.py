"""`scisci models`: list architectures and baselines, measure an architecture, check one, compare its widths.

Beside the tasks, which know the baselines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from scisci.contracts.errors import UserError
from scisci.contracts.run import Parametrization


def main(argv: list[str]) -> None:
    """Run `scisci models ...`."""
    parser = argparse.ArgumentParser(prog="scisci models", description="List, measure and check architectures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="architectures and baselines, with their symmetry claims")
    listing.set_defaults(run=lambda _: show_list())
    info = commands.add_parser(
        "info", help="an architecture measured: parameters, FLOPs, symmetry errors", description=_INFO
    )
    info.add_argument("name", help="an architecture, see 'scisci models list'")
    info.set_defaults(run=lambda options: show_card(options.name))
    check = commands.add_parser(
        "check", help="does a model keep its promises: symmetry, forces, smoothness, ...", description=_CHECK
    )
    check.add_argument("name", help="an architecture, or module:Class of your own")
    check.add_argument("--size", help="size to check (default: the smallest)")
    check.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="an option of the architecture")
    check.add_argument("--forces", choices=("gradient", "direct"), default="gradient", help="(default gradient)")
    check.set_defaults(run=lambda o: show_checks(o.name, o.size, o.set, o.forces))
    _add_widths(commands)
    options = parser.parse_args(argv)
    options.run(options)


def _add_widths(commands: Any) -> None:
    widths = commands.add_parser(
        "widths", help="does what layers give change alike at every width: the coordinate check", description=_WIDTHS
    )
    widths.add_argument("name", help="an architecture that declares its widths")
    widths.add_argument("--dataset", default="xtb-molecules", help="name or path (default xtb-molecules)")
    widths.add_argument("--parametrization", choices=get_args(Parametrization), default="maximal_update")
    widths.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128], help="(default 16 32 64 128)")
    widths.add_argument("--steps", type=int, default=4, help="steps of AdamW (default 4)")
    widths.add_argument("--seeds", type=int, default=3, help="models of each width (default 3)")
    widths.add_argument("--learning-rate", type=float, help="(default: the task's)")
    widths.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="an option of the architecture")
    widths.set_defaults(run=show_widths)


_INFO = (
    "Parameters and FLOPs of every size, measured on ethanol with all pairs within 5 Å, or on small clouds or trees if"
    " it is for these alone; symmetry of the smallest."
)
_CHECK = (
    "Runs every conformance check of what it is for in double precision on small systems, prints each figure beside "
    "its bound, and ends with exit code 1 if one is missed."
)


_WIDTHS = (
    "Trains models of several widths on one batch and prints, for the output of every layer, by which power of the"
    " width its change since the first step grows: near 0 everywhere if one learning rate suits all widths."
)


def show_list() -> None:
    """One row per architecture; then one per baseline and what it predicts."""
    from rich.console import Console
    from rich.table import Table

    from scisci.models import registry
    from scisci.tasks.baselines.registry import BASELINES

    claims, console = ("rotation", "reflection"), Console()
    table = Table("name", "for", *claims, "what it is", title="architectures")
    for name in registry.architectures():
        cls = registry.get(name)
        domains = registry.domains(cls)
        known = "points" if domains == registry.GEOMETRIC else ", ".join(domains)
        table.add_row(name, known, *(cls.symmetry.get(group, "") for group in claims), _first_line(cls))
    console.print(table)
    table = Table(
        "name", "for", "target", *claims, "what it is", title="baselines, for 'scisci baseline fit' and studies"
    )
    for domain, targets in BASELINES.items():
        for target, known_as in targets.items():
            for name, cls in known_as.items():
                claimed = (cls.symmetry[group] if domain in registry.GEOMETRIC else "" for group in claims)
                table.add_row(name, domain, target, *claimed, _first_line(cls))
    console.print(table)


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def show_card(name: str) -> None:
    """What an architecture is, and what of it was measured here and now."""
    import inspect

    from rich.console import Console
    from rich.table import Table

    from scisci.models import registry
    from scisci.models.card import measure_sizes, measure_symmetry

    cls, console = registry.get(name), Console()
    console.print(inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""), end="\n\n", highlight=False)
    console.print(inspect.cleandoc(cls.__doc__ or "").split("\n\nArgs:")[0], end="\n\n", highlight=False)
    table = Table("size", "parameters", "forward", "training", "options", title="FLOPs per atom, node or window")
    for row in measure_sizes(name):
        options = ", ".join(f"{key} {value}" for key, value in row.options.items())
        table.add_row(row.size, f"{row.parameters:,}", f"{row.forward:.3g}", f"{row.training:.3g}", options)
    console.print(table)
    if not (measured := measure_symmetry(name)):
        console.print("claims: " + ", ".join(f"{group} {claim}" for group, claim in cls.symmetry.items()))
        return
    symmetry = Table("group", "claim", "error, float32", "error, float64")
    for group, (claim, single, exact) in measured.items():
        symmetry.add_row(group, claim, f"{single:.1e}", f"{exact:.1e}")
    console.print(symmetry)
    of = "the larger of energy and forces" if "atoms" in registry.domains(cls) else "of a parameter of clouds or trees"
    console.print(f"error: rms of f(g x) - g f(x) over rms of f(x), {of}, untrained weights")


def show_checks(name: str, size: str | None, settings: list[str], forces: Any) -> None:
    """A row per figure; exit code 1 if one misses its bound."""
    from rich.console import Console
    from rich.table import Table

    from scisci.models import registry
    from scisci.models.conformance import Subject, checks_for

    # A model of one's own mostly lies in the folder one works in, which an installed command does not search.
    sys.path.insert(0, str(Path.cwd()))
    cls = registry.load(name)
    overrides = dict(_setting(text) for text in settings)
    options = registry.options(name, size or next(iter(cls.SIZES)), overrides)
    subject, missed = Subject(cls, options, forces), 0
    table = Table("check", "figure", "value", "bound", "")
    for check, run in checks_for(cls).items():
        try:
            outcomes = run(subject)
        except Exception as error:  # a model that fails one check can still be told of the others
            table.add_row(check, "could not be run", "", "", f"[red]{type(error).__name__}: {error}[/red]")
            missed += 1
            continue
        for outcome in outcomes:
            verdict = outcome.note if outcome.passed else f"[red]missed[/red] {outcome.note}"
            bound = "recorded" if outcome.bound is None else f"{outcome.bound:.3g}"
            table.add_row(check, outcome.what, f"{outcome.value:.2g}", bound, verdict)
            missed += not outcome.passed
    Console().print(table)
    if missed:
        print(f"{name}: {missed} checks missed", file=sys.stderr)
        sys.exit(1)


def show_widths(options: argparse.Namespace) -> None:
    """A row per layer: exponents after each step."""
    from rich.console import Console
    from rich.table import Table

    from scisci.tasks.coordinate_check import exponents

    given = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    found = exponents(
        options.name,
        options.dataset,
        options.parametrization,
        options.widths,
        options.steps,
        options.seeds,
        dict(_setting(text) for text in options.set),
        **given,
    )
    asked = f"{options.name}, {options.parametrization}, widths {', '.join(map(str, options.widths))}"
    steps = [f"step {number}" for number in range(1, options.steps + 1)]
    table = Table("output of", *steps, title=f"exponent of the change with width: {asked}")
    for layer, measured in found.items():
        table.add_row(layer, *(f"{value:.2f} ± {error:.2f}" for value, error in zip(*measured, strict=True)))
    Console().print(table)
    print(f"change: root mean square since before step 1; ± standard error over {options.seeds} seeds")


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise UserError(f"cannot read --set {text!r}; write it as KEY=VALUE, e.g. l_max=2")
    return key, yaml.safe_load(value)
