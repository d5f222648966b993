"""What every architecture must satisfy, as checks that the test suite and `scisci models check` both run."""

from __future__ import annotations

from scisci.models.conformance import physics, software, symmetry
from scisci.models.conformance.subject import Check, Outcome, Subject

__all__ = ["CHECKS", "Outcome", "Subject"]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        symmetry.claims,
        symmetry.symmetry,
        symmetry.clouds,
        physics.gradient,
        physics.stress,
        physics.cutoff,
        physics.batching,
        physics.separation,
        physics.periodicity,
        physics.degenerate,
        software.round_trip,
        software.tracing,
        software.sizes,
    )
}
