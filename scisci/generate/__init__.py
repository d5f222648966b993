"""The simulators behind data sets."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from scisci.contracts.errors import unknown_name

GENERATORS = {
    "charged-nbody": "scisci.generate.charged_nbody",
    "chaos": "scisci.generate.chaos",
    "flowing-sensors": "scisci.generate.flowing_sensors",
    "pm-halos": "scisci.generate.pm_halos",
    "science-series": "scisci.generate.science_series",
    "xtb-crystals": "scisci.generate.xtb_crystals",
    "xtb-molecules": "scisci.generate.xtb_molecules",
}


def generator(dataset: str) -> Callable[..., None]:
    """What writes a data set to a path; a name without a simulator is a `UserError` with the closest ones."""
    if dataset not in GENERATORS:
        raise unknown_name("generated data set", dataset, GENERATORS)
    generate: Callable[..., None] = import_module(GENERATORS[dataset]).generate
    return generate


def silent(line: str) -> None:
    """Drop a line of progress."""
