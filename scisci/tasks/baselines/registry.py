"""Baselines by what they predict and by name."""

from __future__ import annotations

from typing import Any

from scisci.contracts.errors import UserError, unknown_name
from scisci.tasks.baselines.linear import Baseline
from scisci.tasks.baselines.parameters import HaloCount, MeanParameters, TwoPoint, TwoPointNetwork
from scisci.tasks.baselines.velocities import LinearTheory, LinearVectors, NoVelocity

DOMAIN = "cloud"
BASELINES: dict[str, dict[str, type[Baseline]]] = {
    "velocities": {"constant": NoVelocity, "linear_theory": LinearTheory, "linear_vectors": LinearVectors},
    "parameters": {
        "constant": MeanParameters,
        "halo_count": HaloCount,
        "two_point": TwoPoint,
        "two_point_mlp": TwoPointNetwork,
    },
}


def names() -> list[str]:
    """Names of all baselines."""
    return sorted({name for known in BASELINES.values() for name in known})


def sizes(name: str, target: str) -> list[str]:
    """Sizes of a baseline, the smallest first; `UserError` for a name or target that does not exist."""
    return list(_found(name, target).SIZES)


def _found(name: str, target: str) -> type[Baseline]:
    if name not in names():
        raise unknown_name("baseline", name, names())
    if target not in BASELINES:
        raise unknown_name("target", target, BASELINES)
    known = BASELINES[target]
    if name not in known:
        raise UserError(f"{name} does not predict {target}; for these choose one of: {', '.join(known)}")
    return known[name]


def build(name: str, domain: str, task: dict[str, Any], size: str, overrides: dict[str, Any] | None = None) -> Baseline:
    """A baseline that has yet to be fitted; `task` has options of the data's task, of which the target counts.

    `UserError` for an unknown name, size, target or option, and for data or a target that the baseline is not for.
    """
    if domain != DOMAIN:
        raise UserError(f"{name} is a baseline for samples of the domain {DOMAIN!r}, not {domain!r}; choose other data")
    found = _found(name, task.get("target", "velocities"))
    preset = found.SIZES
    if size not in preset:
        raise unknown_name(f"size of {name}", size, preset)
    options = preset[size] | (overrides or {})
    for key in overrides or {}:
        _check(name, key, options[key], preset[size])
    return found(**options)


def _check(name: str, key: str, value: Any, preset: dict[str, Any]) -> None:
    """All options are counts."""
    if key not in preset:
        raise unknown_name(f"option of {name}", key, preset)
    lowest = 0 if key == "count" else 1
    if type(value) is not int or value < lowest:
        raise UserError(f"option {key} of {name} is {value!r}, but must be a whole number from {lowest} up")
