"""`scisci data generate`: run the simulator behind a data set."""

from __future__ import annotations

import argparse
from inspect import signature
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.generate import GENERATORS, generator

GENERATOR_OPTIONS = ("train", "frames", "every", "clip", "boxes", "trajectories", "tables", "patterns")


def add(commands: Any) -> None:
    """Add the sub-command."""
    sub = commands.add_parser("generate", help="run the simulator behind a data set")
    sub.add_argument("name", metavar="NAME", help=f"one of: {', '.join(GENERATORS)}")
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new .h5 file")
    sub.add_argument("--seed", type=int, default=20260)
    nbody = sub.add_argument_group("charged-nbody")
    nbody.add_argument("--train", type=int, metavar="N", help="training systems (default: 3000)")
    nbody.add_argument("--frames", type=int, nargs=2, metavar="K", help="input and target frame (default: 30 40)")
    nbody.add_argument("--every", type=int, metavar="STEPS", help="steps from frame to frame (default: 100)")
    nbody.add_argument("--clip", choices=["component", "norm"], help="of forces above 100 (default: component)")
    halos = sub.add_argument_group("pm-halos")
    halos.add_argument("--boxes", type=float, metavar="SHARE", help="this share of every split only (default: 1)")
    chaos = sub.add_argument_group("chaos")
    chaos.add_argument(
        "--trajectories", type=int, metavar="N", help="training trajectories of each system (default: 1)"
    )
    series = sub.add_argument_group("science-series")
    series.add_argument("--tables", type=Path, metavar="DIR", help="archives of the packages that its card names")
    sensors = sub.add_argument_group("flowing-sensors")
    sensors.add_argument("--patterns", type=int, metavar="N", help="superposed in every series (default: 1)")
    sub.set_defaults(action=generate)


def generate(args: argparse.Namespace) -> None:
    """Run the simulator behind a data set; an option that it does not have is refused."""
    simulator = generator(args.name)
    options = {name: value for name in GENERATOR_OPTIONS if (value := getattr(args, name)) is not None}
    if foreign := [name for name in options if name not in signature(simulator).parameters]:
        raise UserError(f"{args.name} has no option --{foreign[0]}; leave it out")
    simulator(args.out, seed=args.seed, log=print, **options)
    print(f"wrote {args.out}; 'scisci data info {args.out}' describes it")
