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
        f"rms over samples of f(g x) - g f(x) for random {group.removesuffix('s')}s g, relative to the rms of f(x); f:"
        f" {quantity}, computed in {precision.strip('_') or 'the precision of the run'}",
    )


def _regression(quantity: str, unit: str, what: str, spread: str) -> tuple[Metric, ...]:
    """Error, unexplained and explained share of the variance of one quantity, which is a `spread` over a split."""
    variance = f"mean of ({what} - reference)^2 over the variance of the reference on the same split, {spread}"
    return (
        Metric(f"{quantity}_mse", f"{quantity} MSE", unit, "lower", True, f"mean of ({what} - reference)^2"),
        Metric(f"{quantity}_fvu", f"{quantity} unexplained", "", "lower", True, f"{variance}: 1 - R²"),
        Metric(f"{quantity}_r2", f"{quantity} R²", "", "higher", False, f"1 - {variance}"),
    )


SPACE_GROUPS = ("rotation", "reflection", "translation", "permutation", "torus", "cubic")
SERIES_GROUPS = ("scale", "offset", "delay", "patches", "channels", "flow")
SYMMETRY_GROUPS = SPACE_GROUPS + SERIES_GROUPS
SYMMETRY_QUANTITIES = ("energy", "forces", "positions", "velocities", "omega_m", "sigma_8", "infilling")

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
        *_regression("velocities", "(km/s)²", "velocity", "about each cloud's own mean, over the points of all clouds"),
        Metric(
            "velocities_r2_mean",
            "velocities R², mean of clouds",
            "",
            "higher",
            False,
            "mean over clouds of each cloud's own R², about its own mean: the other published definition, in which"
            " quiet and small clouds weigh as much as others; velocities_r2 is of all clouds' points together",
        ),
        *_regression("omega_m", "", "Omega_m", "about its mean over samples"),
        *_regression("sigma_8", "", "sigma_8", "about its mean over samples"),
        Metric(
            "infilling_nll",
            "in-filling cross-entropy",
            "nat",
            "lower",
            True,
            "mean over virtual nodes of -log of the probability that the model gives to the node's label",
        ),
        *(
            Metric(f"infilling_{name}", f"in-filling {label}", "", "higher", False, description)
            for name, label, description in (
                ("accuracy", "accuracy", "share of virtual nodes whose label is the likelier one"),
                ("balanced_accuracy", "balanced accuracy", "mean of the accuracies on virtual nodes of either label"),
                ("f1", "F1", "2 hits over the sum of the virtual nodes predicted and those known to have label 1"),
            )
        ),
        Metric(
            "series_nll",
            "NLL, normalised",
            "nat",
            "lower",
            False,
            "mean over steps of -log of the density of the forecast at the observed value, in units of each channel's"
            " standard deviation over the context",
        ),
        Metric(
            "series_nll_raw",
            "NLL, raw units",
            "nat",
            "lower",
            False,
            "mean over steps of -log of the density of the forecast at the observed value; in units a times larger it"
            " is lower by log(a), so without an offset no exponent of it means anything",
        ),
        Metric(
            "series_wql",
            "weighted quantile loss",
            "",
            "lower",
            True,
            "mean over the nine deciles of twice the pinball loss, summed over steps, over the sum of |y|: an estimate"
            " of the CRPS; GluonTS's mean_weighted_sum_quantile_loss",
        ),
        Metric(
            "series_mase",
            "MASE",
            "",
            "lower",
            True,
            "mean over steps of |median - y| over the mean absolute difference of values a season apart in the context",
        ),
        Metric("series_smape", "sMAPE", "", "lower", True, "mean over steps of 2 |median - y| / (|median| + |y|)"),
        Metric(
            "series_mse",
            "MSE, normalised",
            "",
            "lower",
            True,
            "mean over steps of (mean - y)^2, in units of each channel's variance over the context",
        ),
        *(
            Metric(
                f"series_{name}_relative",
                f"{label} to seasonal naive",
                "",
                "lower",
                True,
                f"geometric mean over series of the {label} relative to that of a seasonal naive forecast, each held to"
                " 1/100 to 100",
            )
            for name, label in (("wql", "quantile loss"), ("mase", "MASE"))
        ),
        *(
            _symmetry(group, quantity, precision)
            for groups, quantities in ((SPACE_GROUPS, SYMMETRY_QUANTITIES), (SERIES_GROUPS, ("forecast",)))
            for group in groups
            for quantity in quantities
            for precision in ("", "_float64")
        ),
    )
}


def metric(name: str) -> Metric:
    """Look a metric up by name; an unknown one is a `UserError` with the closest names."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
