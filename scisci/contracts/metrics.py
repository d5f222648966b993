"""The registry of metrics: what each number means, read by training, scaling, report and leaderboard alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scisci.contracts.errors import unknown_name


@dataclass(frozen=True)
class Metric:
    """One number a run reports.

    `natural_zero` says whether zero is the floor of a perfect model: a power law without an offset is only
    meaningful where it is (a force MAE has one, a negative log-likelihood has none).
    """

    name: str
    label: str
    unit: str
    direction: Literal["lower", "higher"]
    natural_zero: bool
    description: str

    @property
    def title(self) -> str:
        """Label with its unit, as an axis or a column shows it."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _symmetry(group: str, quantity: str, precision: str) -> Metric:
    return Metric(
        f"symmetry_{group}_{quantity}{precision}",
        f"{group} error, {quantity}{precision.replace('_', ', ')}",
        "",
        "lower",
        True,
        f"rms over samples of f(g x) - g f(x) for random {group}s g, relative to the rms of f(x); f: {quantity},"
        f" computed in {precision.strip('_') or 'the precision of the run'}",
    )


SYMMETRY_GROUPS = ("rotation", "reflection", "translation", "permutation")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("energy_mae", "energy MAE", "meV/atom", "lower", True, "mean over samples of |E - E_ref| per atom"),
        Metric("force_mae", "force MAE", "meV/Å", "lower", True, "mean over atoms and components of |F - F_ref|"),
        Metric("stress_mae", "stress MAE", "meV/Å³", "lower", True, "mean over components of |stress - stress_ref|"),
        Metric(
            "force_cosine",
            "force cosine",
            "",
            "higher",
            False,
            "mean over atoms of the cosine between predicted and reference force",
        ),
        Metric(
            "position_mse",
            "position MSE",
            "",
            "lower",
            True,
            "mean over particles and components of (x - x_ref)^2 at the later time, in reduced units",
        ),
        *(
            _symmetry(group, quantity, precision)
            for group in SYMMETRY_GROUPS
            for quantity in ("energy", "forces", "positions")
            for precision in ("", "_float64")
        ),
    )
}


def metric(name: str) -> Metric:
    """Look a metric up by name; an unknown one is a `UserError` with the closest names."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
