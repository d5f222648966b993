"""What every architecture must satisfy, as checks that the test suite and `scisci models check` both run.

Which checks these are depends on the domains that an architecture declares to be for.
"""

from __future__ import annotations

from typing import Any

from scisci.models import registry
from scisci.models.conformance import physics, software, symmetry, trees
from scisci.models.conformance.subject import Check, Outcome, Subject

__all__ = ["CHECKS", "Outcome", "Subject", "checks_for"]

# Domain → its checks; "" are those of every domain.
_BY_DOMAIN: dict[str, tuple[Check, ...]] = {
    "": (symmetry.claims, software.round_trip, software.sizes),
    "atoms": (
        symmetry.symmetry,
        physics.gradient,
        physics.stress,
        physics.cutoff,
        physics.batching,
        physics.separation,
        physics.periodicity,
        physics.degenerate,
        software.tracing,
    ),
    "cloud": (symmetry.clouds,),
    "tree": (trees.nodes,),
}
CHECKS: dict[str, Check] = {check.__name__: check for checks in _BY_DOMAIN.values() for check in checks}


def checks_for(architecture: type[Any]) -> dict[str, Check]:
    """The checks of every domain that an architecture is for."""
    domains = ("", *registry.domains(architecture))
    return {check.__name__: check for domain in domains for check in _BY_DOMAIN.get(domain, ())}
