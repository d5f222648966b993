"""Baselines by domain, by what they predict and by name."""

from __future__ import annotations

from typing import Any

from scisci.contracts.errors import UserError, unknown_name
from scisci.tasks.baselines.forecasts import SeasonalNaive
from scisci.tasks.baselines.infilling import LabelShare, Logistic
from scisci.tasks.baselines.linear import Baseline
from scisci.tasks.baselines.parameters import HaloCount, MeanParameters, TwoPoint, TwoPointNetwork
from scisci.tasks.baselines.velocities import LinearTheory, LinearVectors, NoVelocity

# Of every domain, its task's default target comes first.
BASELINES: dict[str, dict[str, dict[str, type[Baseline]]]] = {
    "cloud": {
        "velocities": {"constant": NoVelocity, "linear_theory": LinearTheory, "linear_vectors": LinearVectors},
        "parameters": {
            "constant": MeanParameters,
            "halo_count": HaloCount,
            "two_point": TwoPoint,
            "two_point_mlp": TwoPointNetwork,
        },
    },
    "tree": {
        "parameters": {"constant": MeanParameters, "node_count": HaloCount},
        "infilling": {"constant": LabelShare, "logistic": Logistic},
    },
    "series": {"forecast": {"seasonal_naive": SeasonalNaive}},
}


def names() -> list[str]:
    """Names of all baselines."""
    return sorted({name for targets in BASELINES.values() for known in targets.values() for name in known})


def find(name: str, domain: str, target: str | None = None) -> type[Baseline]:
    """The baseline of that name for a domain and a target, which is that of the domain's task unless given.

    `UserError` for an unknown name, and for a domain or target that the baseline is not for.
    """
    if name not in names():
        raise unknown_name("baseline", name, names())
    served = [known for known, targets in BASELINES.items() if any(name in of for of in targets.values())]
    if domain not in served:
        raise UserError(
            f"{name} is a baseline for samples of the domain {' or '.join(map(repr, served))}, not {domain!r}; choose"
            " other data"
        )
    targets = BASELINES[domain]
    target = next(iter(targets)) if target is None else target
    if target not in targets:
        raise unknown_name("target", target, targets)
    if name not in targets[target]:
        raise UserError(f"{name} does not predict {target}; for these choose one of: {', '.join(targets[target])}")
    return targets[target][name]


def build(name: str, domain: str, task: dict[str, Any], size: str, overrides: dict[str, Any] | None = None) -> Baseline:
    """A baseline that has yet to be fitted; `task` has options of the data's task, of which the target counts.

    `UserError` for an unknown size or option too, besides those of `find`.
    """
    found = find(name, domain, task.get("target"))
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
