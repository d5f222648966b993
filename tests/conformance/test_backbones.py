"""Every registered architecture passes every check, and the checks see what is broken."""

from __future__ import annotations

from math import isfinite
from typing import Any

import pytest

from scisci.models import registry
from scisci.models.conformance import CHECKS, Subject, checks_for

VARIANTS: list[tuple[str, dict[str, Any], Any]] = [
    *((name, {}, "gradient") for name in registry.architectures()),
    *((name, {}, "direct") for name in registry.architectures("atoms")),
    ("nequip", {"l_max": 0}, "gradient"),
    ("nequip", {"l_max": 2, "layers": 3}, "gradient"),
    ("nequip", {"l_max": 3, "layers": 3, "parity": True}, "gradient"),
    ("nequip", {"l_max": 1, "parity": True}, "direct"),
    ("nequip", {"l_max": 2, "parity": True, "tensor_product": "so2"}, "gradient"),
    ("nequip", {"l_max": 2, "tensor_product": "gaunt"}, "gradient"),
    ("nequip", {"self_connection": "bilinear"}, "gradient"),
    ("gin", {"both_ways": True}, "gradient"),
    ("egnn", {"coordinates": 1}, "gradient"),
    ("ponita", {"orientations": 12}, "gradient"),
    ("equiformer", {"l_max": 0}, "gradient"),
    ("equiformer", {"l_max": 3, "heads": 1}, "gradient"),
    ("esen", {"l_max": 1}, "gradient"),
    ("esen", {"l_max": 3}, "gradient"),
    ("mace", {"l_max": 0, "correlation": 2}, "gradient"),
    ("escaip", {"angular": False}, "gradient"),
    ("escaip", {"l_max": 0}, "gradient"),
    ("escaip", {"l_max": 3, "heads": 2, "edge_channels": 16}, "gradient"),
    ("escaip", {"components": True}, "direct"),
    ("dpa3", {"layers": 1, "axes": 1}, "gradient"),
    ("dpa3", {"layers": 4, "angle_range": 1.0}, "gradient"),
    ("dpa3", {"layers": 4}, "direct"),
    ("mace", {"l_max": 2, "l_max_edge": 2, "parity": True}, "gradient"),
]
# What forces and options do not change is checked once per architecture.
ONCE = ("claims", "clouds", "sizes")


def _cases() -> list[Any]:
    return [
        pytest.param(
            name,
            overrides,
            forces,
            check,
            id=f"{name}-{'-'.join(f'{k}={v}' for k, v in overrides.items())}-{forces}-{check}",
        )
        for name, overrides, forces in VARIANTS
        for check in checks_for(registry.get(name))
        if check not in ONCE or (not overrides and forces == "gradient")
    ]


@pytest.mark.parametrize(("name", "overrides", "forces", "check"), _cases())
def test_architecture(name: str, overrides: dict[str, Any], forces: Any, check: str) -> None:
    sizes = registry.get(name).SIZES
    size = "3k" if "3k" in sizes else next(iter(sizes))
    subject = Subject(registry.get(name), registry.options(name, size, overrides), forces)
    outcomes = CHECKS[check](subject)
    # Of a model from elsewhere it is only recorded that it cannot be traced; the shipped ones can.
    assert all(outcome.passed and isfinite(outcome.value) for outcome in outcomes), outcomes
