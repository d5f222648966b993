"""One fit per group of a table, all with the same objective; and the groups compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.comparison import SharedExponent, difference, shared_exponent
from scisci.scaling.crossing import REACH, Crossover, crossover
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import ROBUST_DELTA, ROBUST_FROM, fit, match_variables
from scisci.scaling.law import Law
from scisci.scaling.law import law as find_law
from scisci.scaling.records import difference_record, fit_record, number, refused_record
from scisci.scaling.resampling import REFERENCE_SEED, Bootstrap, bootstrap, paired_bootstrap, quote
from scisci.scaling.table import Points, Table, is_results, points, read_table, select_metric
from scisci.scaling.validation import holdout


@dataclass(frozen=True)
class Query:
    """What is fitted to which columns of a table, as the commands take it."""

    table: Any
    law: str
    x: Mapping[str, str]
    y: str
    by: Sequence[str] = ()
    cluster: str | None = None
    se: str | None = None
    where: str | None = None
    delta: float | None = None
    resamples: int = 4000
    seed: int = REFERENCE_SEED
    holdout: str | None = None
    noise: Literal["runs", "seeds"] = "runs"


@dataclass(frozen=True)
class Group:
    """The points of one group with their fit and its bootstrap, or the reason why there is none."""

    law: Law
    key: dict[str, Any]
    data: Points
    fit: Fit | None
    refits: Bootstrap | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The group's values, for reading."""
        return ", ".join(str(value) for value in self.key.values()) or "all"


def split_points(query: Query) -> list[tuple[dict[str, Any], Points]]:
    """The checked points of every group, in order of appearance."""
    form = find_law(query.law)
    columns = match_variables(form, query.x)
    table = read_table(query.table)
    if is_results(table) and query.y not in table.columns:
        table = select_metric(table, query.y)
    return [
        (key, _checked(form, key, rows, columns, query))
        for key, rows in table.where(query.where, columns).groups(query.by)
    ]


def _checked(law: Law, key: dict[str, Any], rows: Table, columns: Mapping[str, str], query: Query) -> Points:
    """The points of one group; a fault says in which group it is."""
    try:
        return points(rows, columns, query.y, cluster=query.cluster, se=query.se, zero_allowed=law.zero_allowed)
    except UserError as error:
        if not key:
            raise
        raise UserError(f"{', '.join(f'{name} {value}' for name, value in key.items())}: {error}") from error


def fit_groups(query: Query) -> list[Group]:
    """Fit the law to every combination of the columns `by`.

    The objective is chosen once, by the smallest group, since exponents fitted with different objectives are
    not comparable. A group too small for the law has the reason instead of a fit; without `by` it is the
    `UserError` itself.
    """
    form = find_law(query.law)
    groups = split_points(query)
    delta = query.delta
    if delta is None:
        smallest = min(len(data.runs) for _, data in groups)
        delta = ROBUST_DELTA if smallest - len(form.names) >= ROBUST_FROM else np.inf
    return [_fit_group(form, key, data, delta, query) for key, data in groups]


def _fit_group(law: Law, key: dict[str, Any], data: Points, delta: float, query: Query) -> Group:
    try:
        found = fit(law, data, delta=delta)
    except UserError as error:
        if not query.by:
            raise
        return Group(law, key, data, None, reason=str(error))
    if query.resamples == 0:
        return Group(law, key, data, found)
    try:
        refits = bootstrap(found, query.resamples, query.seed, query.noise)
    except UserError as error:
        if not np.isinf(delta):
            raise
        return Group(law, key, data, found, warnings=(f"no bootstrap: {error}",))
    return Group(law, key, data, quote(found, refits), refits)


def records(groups: Sequence[Group], query: Query) -> list[dict[str, Any]]:
    """The JSON entries of fitted groups."""
    return [_record(group, query) for group in groups]


def _record(group: Group, query: Query) -> dict[str, Any]:
    data, found = group.data, group.fit
    if found is None:
        more = {"group": group.key, "metric": data.metric, "unit": data.unit, "n": len(data)}
        law = group.law
        return refused_record(law.name, law.formula, law.exponent, group.reason, left_out=dict(data.left_out), **more)
    record = fit_record(found, group.key)
    record["warnings"] += group.warnings
    if group.refits is not None and found.identified:
        for name, entry in record["parameters"].items():
            entry["ci95_bootstrap"] = [number(end) for end in group.refits.interval(name)]
    if query.holdout is not None:
        record["holdout"] = holdout(found.law, found.points, query.holdout, found.delta).record()
    return record


def compare_groups(query: Query, pair: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Fits with their exponent differences, and "slope or offset?" in a line for every comparison.

    Groups by `by` are compared with one another; with `pair` (a column such as split) each also across its
    values, paired by run, against "test" or the first value.
    """
    if not query.by:
        raise UserError("nothing to compare; say which groups with --by")
    levels = [name for name in query.by if name != pair]
    query = replace(query, by=[*levels, *([pair] if pair else [])])
    groups = fit_groups(query)
    found = records(groups, query)
    for group, record in zip(groups, found, strict=True):
        record["differences"] = [
            _compared(group.fit, other.fit, kind, other.key, query)
            for other in groups
            if (kind := _relation(group, other, groups, levels, pair)) and group.fit and other.fit
        ]
    lines = []
    for title, members in _families(groups, levels, pair):
        fits = [group.fit for group in members if group.fit is not None]
        if len(fits) > 1:
            test = shared_exponent(fits)
            lines.append(f"{title}: {test.words}{_held_out_words(test)}")
    return found, lines


def _compared(a: Fit, b: Fit, kind: str, to: dict[str, Any], query: Query) -> dict[str, Any]:
    resampled = paired_bootstrap(a, b, query.resamples, query.seed) if query.resamples else None
    return difference_record(difference(a, b), kind, to, resampled)


def _held_out_words(test: SharedExponent) -> str:
    shared, separate = test.held_out
    if not np.isfinite(shared):
        return ""
    return f"; largest sizes held out: rms log error {shared:.3g} shared, {separate:.3g} separate"


def _relation(group: Group, other: Group, groups: Sequence[Group], levels: list[str], pair: str | None) -> str:
    """ "ood-id" across the paired column, "architecture" between groups, "" where not compared."""
    if other is group:
        return ""
    same = all(group.key[name] == other.key[name] for name in levels)
    if pair is not None and same:
        values = [each.key[pair] for each in groups]
        reference = "test" if "test" in values else values[0]
        return "ood-id" if other.key[pair] == reference else ""
    if pair is not None and group.key[pair] != other.key[pair]:
        return ""
    return "architecture"


def _families(groups: Sequence[Group], levels: list[str], pair: str | None) -> list[tuple[str, list[Group]]]:
    """Sets of groups for the shared-exponent test: across `by` at each paired value, which share no runs."""
    if not levels:
        return []
    if pair is None:
        return [(" vs ".join(group.name for group in groups), list(groups))]
    values = list(dict.fromkeys(group.key[pair] for group in groups))
    return [(f"{pair} {value}", [group for group in groups if group.key[pair] == value]) for value in values]


def cross_groups(query: Query, reach: float = REACH) -> list[tuple[Group, Group, Crossover]]:
    """The crossover of every pair of groups that could be fitted."""
    if not query.by:
        raise UserError("nothing to cross; say which groups with --by")
    fitted = [group for group in fit_groups(replace(query, resamples=0)) if group.fit is not None]
    if len(fitted) < 2:
        raise UserError("fewer than two groups could be fitted; choose a smaller law or add runs")
    return [
        (a, b, crossover(a.fit, b.fit, reach=reach, seed=query.seed))
        for a, b in combinations(fitted, 2)
        if a.fit is not None and b.fit is not None
    ]
