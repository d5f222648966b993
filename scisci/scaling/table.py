"""Tables in, points out: CSV, Parquet, JSON lines, data frames or dicts of columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.metrics import METRICS
from scisci.scaling.units import two_units

_COMPARE = {
    "==": np.equal,
    "!=": np.not_equal,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "<": np.less,
    ">": np.greater,
}
_CONDITION = re.compile(r"^\s*([^<>=!]+?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*$")
_UNIT_COLUMNS = ("unit", "units")


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name; `set_aside` holds the rows of runs that did not end well."""

    columns: Mapping[str, np.ndarray]
    set_aside: Table | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> np.ndarray:
        """A column by name; an unknown one is a `UserError` with the closest names."""
        if name not in self.columns:
            raise unknown_name("column", name, self.columns)
        return self.columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64; text in it is a `UserError`, an absent value is NaN."""
        values = self.column(name)
        if values.dtype.kind in "fiub":
            return values.astype(float)
        try:
            return np.array([np.nan if value is None else float(value) for value in values])
        except (TypeError, ValueError):
            bad = next(value for value in values if value is not None and not _is_number(value))
            raise UserError(f"column {name!r} holds {bad!r}, which is not a number; clean the column") from None

    @property
    def left_out(self) -> dict[str, int]:
        """How many runs were set aside, by status."""
        if self.set_aside is None:
            return {}
        ends = set(zip(*(self.set_aside.column(name).tolist() for name in ("run", "status")), strict=True))
        return {reason: sum(end[1] == reason for end in ends) for reason in sorted({end[1] for end in ends})}

    def rows(self, keep: np.ndarray) -> Table:
        """The rows where `keep` is true."""
        return replace(self, columns={name: values[keep] for name, values in self.columns.items()})

    def where(self, condition: str | None, variables: Mapping[str, str] | None = None) -> Table:
        """Rows that meet every condition, as in "data==1024 and N>1e6".

        Where there is no such column, a name in `variables` stands for the column it maps to.
        """
        table = self
        for part in re.split(r"\s+and\s+|,", condition) if condition else []:
            name, operator, text = _read_condition(part)
            if name not in self.columns:
                name = (variables or {}).get(name, name)
            aside = table.set_aside
            if aside is not None and not _absent(aside, name):
                aside = aside.rows(aside._matches(name, operator, text))
            table = replace(table.rows(table._matches(name, operator, text)), set_aside=aside)
        if condition and not len(table):
            raise UserError(f"no row meets {condition!r}; check the values of the columns it names")
        return table

    def _matches(self, name: str, operator: str, text: str) -> np.ndarray:
        values = self.column(name)
        if values.dtype.kind in "fiu" or all(value is None or _is_number(value) for value in values):
            if not _is_number(text):
                raise UserError(f"column {name!r} holds numbers, but the condition compares it with {text!r}")
            return _COMPARE[operator](self.numbers(name), float(text))
        if operator not in ("==", "!="):
            raise UserError(f"column {name!r} holds text; a condition on it can only use == or !=")
        return _COMPARE[operator](values.astype(str), text)

    def groups(self, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], Table]]:
        """One table per combination of the values of `by`, in order of first appearance."""
        if not by:
            yield {}, self
            return
        keys = list(zip(*(self.column(name).tolist() for name in by), strict=True))
        codes: dict[tuple[Any, ...], int] = {}
        index = np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=int)
        for key, code in codes.items():
            group = dict(zip(by, key, strict=True))
            aside = self.set_aside
            for name, value in group.items():
                if aside is not None and not _absent(aside, name):
                    aside = aside.rows(np.array([entry == value for entry in aside.column(name).tolist()]))
            yield group, replace(self.rows(index == code), set_aside=aside)


def _read_condition(condition: str) -> tuple[str, str, str]:
    """Column, operator and value of "data>=1024"."""
    match = _CONDITION.match(condition)
    if match is None:
        raise UserError(f"cannot read the condition {condition!r}; write it as column<=value, e.g. N>1e6")
    name, operator, text = match.groups()
    return name, operator, text.strip("'\"")


def _absent(aside: Table, name: str) -> bool:
    """Whether a column is empty for runs that did not end well (split, metric, value)."""
    values = aside.column(name)
    return all(value is None or value != value for value in values.tolist())


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def read_table(source: Any) -> Table:
    """A `Table` from a path (.csv, .parquet, .jsonl, .ndjson), a data frame, an Arrow table or a dict."""
    if isinstance(source, Table):
        return source
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    if isinstance(source, Mapping):
        columns = {str(name): np.asarray(values) for name, values in source.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise UserError("the columns of the table differ in length; give every row a value")
        return Table(columns)
    if hasattr(source, "column_names"):
        return _from_arrow(source)
    if hasattr(source, "columns"):
        return Table({str(name): source[name].to_numpy() for name in source.columns})
    raise UserError(f"cannot read a table from {type(source).__name__}; give a path, a data frame or a dict")


def _read_file(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    readers = {
        ".parquet": parquet.read_table,
        ".csv": csv.read_csv,
        ".jsonl": json.read_json,
        ".ndjson": json.read_json,
        ".json": json.read_json,
    }
    if path.suffix.lower() not in readers:
        raise UserError(f"cannot tell the format of {path}; name it .csv, .parquet or .jsonl")
    if not path.is_file():
        raise UserError(f"there is no table at {path}; check the path")
    try:
        return _from_arrow(readers[path.suffix.lower()](path))
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error


def _from_arrow(table: Any) -> Table:
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = str(column.type)
        if column.null_count and not kind.startswith(("int", "uint", "float", "double")):
            columns[name] = np.array(column.to_pylist(), dtype=object)
        else:
            columns[name] = column.to_numpy()
    return Table(columns)


def is_results(table: Table) -> bool:
    """Whether the table is a results table: long, one row per run, split and metric."""
    return {"run", "split", "metric", "value", "status"} <= set(table.columns)


def select_metric(table: Table, name: str) -> Table:
    """Of a results table, the rows of one metric of runs that ended well; the rest is set aside."""
    well = table.column("status").astype(str) == "ok"
    aside = table.set_aside if well.all() else table.rows(~well)
    ended = replace(table.rows(well), set_aside=aside)
    metrics = ended.column("metric").astype(str)
    if name not in metrics:
        raise unknown_name("metric in this table", name, sorted(set(metrics.tolist()) - {"None"}))
    return ended.rows(metrics == name)


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: variables (each [n]), loss [n], and which run every point belongs to.

    `cluster` [n] numbers the runs from 0; `runs` names them. `se` [n] is the known standard error of the
    loss in its own units, where it is to be used. `unit` and `natural_zero` come from the metric registry
    (None where the metric is not in it). Build with `points`, which checks everything.
    """

    x: tuple[np.ndarray, ...]
    y: np.ndarray
    cluster: np.ndarray
    runs: tuple[str, ...]
    se: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    metric: str = "y"
    unit: str = ""
    natural_zero: bool | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def log_y(self) -> np.ndarray:
        """ln of the loss [n]."""
        return np.log(self.y)

    def take(self, keep: np.ndarray) -> Points:
        """The points at the given positions or where the mask is true."""
        old, codes = in_order(self.cluster[keep])
        return replace(
            self,
            x=tuple(values[keep] for values in self.x),
            y=self.y[keep],
            se=None if self.se is None else self.se[keep],
            cluster=codes,
            runs=tuple(self.runs[i] for i in old),
        )


def points(
    source: Any,
    x: Mapping[str, str],
    y: str,
    *,
    cluster: str | None = None,
    se: str | None = None,
    where: str | None = None,
    zero_allowed: Sequence[str] = (),
    one_curve: bool = True,
) -> Points:
    """Checked points of one fit from a table; `x` maps the law's variables to columns; those
    in `zero_allowed` may be zero. `one_curve` false: the loss depends on more than `x`, so a jump means nothing.

    In a results table `y` may be a metric, `cluster` defaults to the run and `se` may be "se". Every fault
    of the table (NaN, values that are not positive, duplicates, mixed units) is a `UserError`.
    """
    table = read_table(source)
    results = is_results(table) and y not in table.columns
    if results:
        table = select_metric(table, y)
        cluster = cluster or "run"
    table = table.where(where, x)
    column = "value" if results else y
    xs = tuple(_positive(table, name, "x", zero=variable in zero_allowed) for variable, name in x.items())
    ys = _positive(table, column, "y", called=y)
    _refuse_mixtures(table, results)
    _refuse_duplicates(table, xs, ys)
    if one_curve:
        _refuse_two_units(xs, ys, y)
    names = table.column(cluster).astype(str) if cluster else np.arange(len(ys)).astype(str)
    runs, codes = in_order(names)
    known = METRICS.get(y)
    return Points(
        x=xs,
        y=ys,
        cluster=codes,
        runs=tuple(str(run) for run in runs),
        se=_positive(table, se, "standard error") if se else None,
        columns=tuple(x.values()),
        metric=y,
        unit=known.unit if known else "",
        natural_zero=known.natural_zero if known else None,
        left_out=table.left_out,
    )


def in_order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order of first appearance, and the number [n] of each value among them."""
    distinct, first, codes = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return distinct[order], np.argsort(order)[codes]


def _positive(table: Table, column: str, role: str, called: str | None = None, zero: bool = False) -> np.ndarray:
    values = table.numbers(column)
    called = called or column
    if not len(values):
        raise UserError("the table has no rows to fit; check the file and the conditions")
    for fault, bad in (
        ("missing or NaN", np.isnan(values)),
        ("infinite", np.isinf(values)),
        ("negative" if zero else "zero or negative", (values < 0) if zero else (values <= 0)),
        ("beyond 1e-50 to 1e50", ((values < 1e-50) & (values != 0)) | (values > 1e50)),
    ):
        if bad.any():
            raise UserError(
                f"the {role} column {called!r} is {fault} in {int(bad.sum())} of {len(values)} rows "
                f"(first: row {int(np.flatnonzero(bad)[0]) + 1}); a law of logarithms needs positive, "
                "finite numbers, so leave such rows out with --where or mend them"
            )
    return values


def _refuse_mixtures(table: Table, results: bool) -> None:
    mixed = [*_UNIT_COLUMNS, *(["dataset", "metric", "split"] if results else [])]
    for name in mixed:
        if name in table.columns:
            kinds = sorted({str(value) for value in table.column(name)})
            if len(kinds) > 1:
                raise UserError(
                    f"the rows mix several values of {name!r} ({', '.join(kinds[:4])}) in one fit; "
                    f"separate them with --by {name} or --where"
                )


def _refuse_two_units(xs: Sequence[np.ndarray], ys: np.ndarray, called: str) -> None:
    """Refuse a loss that jumps between two levels, as one written in two units does."""
    found = two_units(xs, np.log(ys))
    if found is not None:
        above = 2 * found.high.sum() <= len(ys)
        few = np.flatnonzero(found.high if above else ~found.high)
        raise UserError(
            f"{called!r} jumps as no law does: {len(few)} of {len(ys)} rows (first: row {few[0] + 1}) lie "
            f"{'above' if above else 'below'} the curve of the others by a factor of {found.words}; convert the column "
            "to one unit, or separate two kinds of rows with --by or --where"
        )


def _refuse_duplicates(table: Table, xs: Sequence[np.ndarray], ys: np.ndarray) -> None:
    """Refuse rows that agree in every column: they would count one measurement twice."""
    alike: dict[tuple[float, ...], list[int]] = {}
    for i, key in enumerate(zip(*xs, ys, strict=True)):
        alike.setdefault(key, []).append(i)
    for rows in alike.values():
        seen: dict[tuple[str, ...], int] = {}
        for i in rows if len(rows) > 1 else ():
            row = tuple(str(values[i]) for values in table.columns.values())
            if row in seen:
                raise UserError(
                    f"rows {seen[row] + 1} and {i + 1} are the same in every column; remove duplicated rows, "
                    "since they make the intervals too narrow"
                )
            seen[row] = i
