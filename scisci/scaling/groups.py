"""One fit per group of a table, all with the same objective, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.fitting import ROBUST_DELTA, ROBUST_FROM, fit, match_variables
from scisci.scaling.law import Law
from scisci.scaling.law import law as find_law
from scisci.scaling.records import fit_record, number, refused_record
from scisci.scaling.resampling import REFERENCE_SEED, bootstrap, quote
from scisci.scaling.table import Points, is_results, points, read_table, select_metric


def fit_groups(
    source: Any,
    law: str,
    x: Mapping[str, str],
    y: str,
    *,
    by: Sequence[str] = (),
    cluster: str | None = None,
    se: str | None = None,
    where: str | None = None,
    delta: float | None = None,
    resamples: int = 4000,
    seed: int = REFERENCE_SEED,
) -> list[dict[str, Any]]:
    """Fit `law` to every combination of the columns `by`; the JSON entries in order of appearance.

    The objective is chosen once, by the smallest group, since exponents fitted with different objectives are
    not comparable. A group too small for the law becomes an entry with the reason; without `by` it is the
    `UserError` itself.
    """
    form = find_law(law)
    table = read_table(source)
    if is_results(table) and y not in table.columns:
        table = select_metric(table, y)
    ordered = match_variables(form, x)
    groups = [
        (group, points(rows, ordered, y, cluster=cluster, se=se, zero_allowed=form.zero_allowed))
        for group, rows in table.where(where).groups(by)
    ]
    if delta is None:
        smallest = min(len(data.runs) for _, data in groups)
        delta = ROBUST_DELTA if smallest - len(form.names) >= ROBUST_FROM else np.inf
    return [_record(form, group, data, delta, resamples, seed, raises=not by) for group, data in groups]


def _record(
    law: Law, group: dict[str, Any], data: Points, delta: float, resamples: int, seed: int, *, raises: bool
) -> dict[str, Any]:
    try:
        found = fit(law, data, delta=delta)
    except UserError as error:
        if raises:
            raise
        more = {"group": group, "metric": data.metric, "unit": data.unit, "n": len(data)}
        return refused_record(law.name, law.formula, law.exponent, str(error), left_out=dict(data.left_out), **more)
    if resamples == 0:
        return fit_record(found, group)
    try:
        refits = bootstrap(found, resamples, seed)
    except UserError as error:
        if not np.isinf(delta):
            raise
        record = fit_record(found, group)
        return record | {"warnings": [*record["warnings"], f"no bootstrap: {error}"]}
    found = quote(found, refits)
    record = fit_record(found, group)
    for name, entry in record["parameters"].items():
        shown = found.identified
        entry["ci95_bootstrap"] = [number(end) for end in refits.interval(name)] if shown else None
    return record
