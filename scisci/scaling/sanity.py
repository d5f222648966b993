"""What a metric allows: an exponent without a floor needs a natural zero, and a smooth curve a smooth metric."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.table import Points
from scisci.scaling.trends import shape

# names under which losses without a natural zero go: densities have units, so their likelihoods do too
_NO_ZERO = re.compile(r"(^|_)(nll|elbo|log_?lik\w*|log_?prob\w*|neg_?log\w*|free_energy)($|_)", re.IGNORECASE)


_SHAPES = {
    "rises": "rising with scale",
    "flat": "flat within its scatter",
    "U-shaped": "U-shaped in scale",
    "peaked": "peaked in scale",
}


def lacks_zero(data: Points) -> bool:
    """Whether zero is no floor of the metric: by the registry, or by its name where it is not there."""
    if data.natural_zero is not None:
        return not data.natural_zero
    return bool(_NO_ZERO.search(data.metric))


def metric_warnings(found: Fit) -> list[str]:
    """What a reader must know about the metric before quoting the exponent."""
    warnings = []
    data = found.points
    offset = any(parameter.linear and parameter.lower == 0 for parameter in found.law.parameters)
    if lacks_zero(data) and not offset and found.identified:
        warnings.append(_unit_warning(found))
    warnings += _shape_warning(found)
    kinds, sizes = len(np.unique(data.y)), len(np.unique(data.x[0]))
    if len(data) >= 6 and kinds <= sizes // 2:
        warnings.append(
            f"{data.metric} takes only {kinds} values at {sizes} sizes: a discontinuous metric hides smooth progress "
            "and fakes breaks, so fit a continuous one beside it"
        )
    return warnings


def _shape_warning(found: Fit) -> list[str]:
    """What speaks against any law of falling loss; whether a trend is flat is for the fit's own interval."""
    data = found.points
    if found.law.variables != ("N",) or len(np.unique(data.x[0])) < 3:
        return []
    kind = shape(data)
    if kind == "flat":
        low, high = found.intervals[found.law.exponent]
        if not (found.law.log_linear and found.identified and low <= 0.0 <= high):
            return []
    if kind == "falls":
        return []
    return [f"{data.metric} is {_SHAPES[kind]}: no law of falling loss describes an improvement here"]


def _unit_warning(found: Fit) -> str:
    """How far the exponent moves when the origin does, and what a law with an offset says."""
    data, name = found.points, found.law.exponent
    moved = fit(found.law, replace(data, y=data.y + 1.0), delta=found.delta).parameters[name]
    words = (
        f"{data.metric} has no natural zero, so {name} depends on its unit: adding 1 to every value moves it from "
        f"{found.parameters[name]:.3f} to {moved:.3f}"
    )
    if found.law.name != "power":
        return words
    try:
        beside = fit("power_offset", data, delta=found.delta)
    except UserError:
        return words + "; too few points to fit an offset beside it"
    if not beside.identified:
        return words + f"; with an offset it is not identified ({beside.audit.reasons[0]})"
    low, high = beside.intervals["alpha"]
    return words + f"; with an offset it is {beside.parameters['alpha']:.3f} [{low:.3f}, {high:.3f}]"
