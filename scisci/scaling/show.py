"""Tables for the terminal: laws, fits and studies."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scisci.scaling.law import laws
from scisci.scaling.records import interval_text

_AXIS_TITLES = {"params": "parameters", "data": "training samples", "flops": "training FLOPs"}
_COLOURS = {"identified": "green", "weak": "yellow", "not identified": "red"}


def show_laws(console: Console) -> None:
    """List the laws with formula and source."""
    table = Table("law", "formula", "variables", "source", title="scaling laws")
    for name, law in sorted(laws().items()):
        table.add_row(name, escape(law.formula), ", ".join(law.variables), escape(law.source))
    console.print(table)


def show_fits(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """One row per parameter of every fit; one that is not identified shows no number."""
    keys = list(dict.fromkeys(key for record in records for key in record["group"]))
    table = Table(*keys, "law", "n", "parameter", "value", "95 % interval", "verdict")
    for record in records:
        lead = [str(record["group"].get(key, "")) for key in keys] + [record["law"], str(record["n"])]
        verdict = _verdict(record)
        if record["audit"]["verdict"] == "not identified":
            table.add_row(*lead, record["exponent"], "–", "–", verdict, end_section=True)
            continue
        rows = {**record["parameters"], **record["derived"]}
        for i, (name, entry) in enumerate(rows.items()):
            first = lead if i == 0 else [""] * len(lead)
            ends = ", ".join("open" if end is None else f"{end:.4g}" for end in entry["ci95"])
            last = i == len(rows) - 1
            table.add_row(
                *first,
                name,
                "–" if entry["value"] is None else f"{entry['value']:.4g}",
                f"[{ends}]".replace("[", r"\["),
                verdict if i == 0 else "",
                end_section=last,
            )
    console.print(table)
    _notes(console, records)
    for record in records:
        if record["holdout"]:
            console.print(_holdout_line(record), highlight=False, markup=False)


def _holdout_line(record: Mapping[str, Any]) -> str:
    held = record["holdout"]
    name = ", ".join(str(value) for value in record["group"].values()) or record["law"]
    steps = [f"{step['value']:.3g} (to {step['largest']:.3g})" for step in held["drift"]]
    drift = f"; {record['exponent']} as the range grows: {', '.join(steps)}" if steps else ""
    return f"{name}: {held['n']} points held out, rms log error {held['error']:.3g}, bias {held['bias']:+.3g}{drift}"


def show_study(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Exponents by axis, architectures down and splits across, then the differences OOD minus ID.

    Why a verdict fell is in the records (`audit.reasons`): dozens of fits have too many reasons to list.
    """
    splits = sorted(dict.fromkeys(record["group"]["split"] for record in records), key=lambda name: name != "test")
    metric = records[0]["metric"]
    for axis, title in _AXIS_TITLES.items():
        chosen = [record for record in records if record["axis"] == axis]
        if not chosen:
            continue
        rows = _rows(chosen)
        cells = {key: {split: _exponent_cell(record) for split, record in row.items()} for key, row in rows.items()}
        _by_split(console, f"exponent of {metric} along {title}, 95 % interval", splits, cells)
        differences = {
            key: {split: _difference_cell(record) for split, record in row.items()} for key, row in rows.items()
        }
        if any(_differs(record) is not None for record in chosen):
            heading = f"exponent OOD minus ID along {title}, 95 % interval, paired by run"
            _by_split(console, heading, [split for split in splits if split != "test"], differences)
    _legend(console, records)
    _left_out(console, records)
    console.print("the reason for each verdict is in the JSON (audit.reasons) and in the report", highlight=False)


Key = tuple[str, str]  # architecture with treatment, law


def _by_split(console: Console, title: str, splits: Sequence[str], cells: Mapping[Key, Mapping[str, Text]]) -> None:
    """One column per split; folded, and if need be in several tables, so that no word is cut at this width."""
    lead = 3 + 1 + sum(3 + max(map(cell_len, column)) for column in zip(("model", "law"), *cells, strict=True))
    for fold in (False, True):
        columns = {name: _column(name, [row.get(name, Text("–")) for row in cells.values()], fold) for name in splits}
        widths = {name: 3 + max(map(_width, texts)) for name, texts in columns.items()}
        if lead + sum(widths.values()) <= console.width:
            break
    parts: list[list[str]] = [[]]
    for split in splits:
        if parts[-1] and lead + sum(widths[name] for name in [*parts[-1], split]) > console.width:
            parts.append([])
        parts[-1].append(split)
    for part in parts:
        table = Table("model", "law", title=title, show_lines=fold)
        for split in part:
            table.add_column(columns[split][0], no_wrap=True)
        for i, key in enumerate(cells, start=1):
            table.add_row(*key, *(columns[split][i] for split in part))
        console.print(table)


def _column(split: str, cells: Sequence[Text], fold: bool) -> list[Text]:
    """Heading and cells; folded, value, interval and verdict each have a line and a long name breaks at its prefix."""
    if not fold:
        return [Text(split), *cells]
    folded = [Text(re.sub(r" (?=[\[(])", "\n", cell.plain), style=cell.style) for cell in cells]
    narrow = cell_len(split) <= max(map(_width, folded))
    return [Text(split if narrow else split.replace("ood_", "ood_\n", 1)), *folded]


def _width(text: Text) -> int:
    return max(map(cell_len, text.plain.split("\n")))


def _exponent_cell(record: Mapping[str, Any]) -> Text:
    return Text(record["text"], style=_COLOURS[record["audit"]["verdict"]])


def _difference_cell(record: Mapping[str, Any]) -> Text:
    found = _differs(record)
    return Text(found["text"] if found else "–")


def _differs(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The difference of this exponent from that on `test`."""
    return next((each for each in record["differences"] if each["kind"] == "ood-id"), None)


def show_differences(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Every exponent difference once, with its interval and verdict."""
    table = Table("group", "minus", "difference", "verdict", "interval", title="differences of exponents, 95 %")
    seen: set[frozenset[str]] = set()
    for record in records:
        for each in record["differences"]:
            names = [", ".join(str(value) for value in group.values()) for group in (record["group"], each["to"])]
            if frozenset(names) not in seen:
                seen.add(frozenset(names))
                table.add_row(*names, escape(each["text"]), each["verdict"], escape(each["method"]))
    if seen:
        console.print(table)


def show_rows(console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table of text."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def interval(value: float, low: float, high: float, reason: str = "") -> str:
    """A number with its interval, or why there is none."""
    return interval_text(value, low, high) if math.isfinite(value) else f"not identified: {reason}"


def _rows(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        group = record["group"]
        model = group["architecture"] + ("" if group["treatment"] == "none" else f" + {group['treatment']}")
        rows.setdefault((model, record["law"]), {})[group["split"]] = record
    return rows


def _intervals(records: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The degrees of freedom seen with each kind of interval."""
    found: dict[str, set[int]] = {}
    for record in records:
        if record["interval"]:
            found.setdefault(record["interval"]["words"], set()).add(record["interval"]["dof"])
    return {words: sorted(dofs) for words, dofs in found.items()}


def _verdict(record: Mapping[str, Any]) -> str:
    verdict = record["audit"]["verdict"]
    return f"[{_COLOURS[verdict]}]{verdict}[/]"


def _legend(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """What was minimised and which interval is quoted."""
    for line in dict.fromkeys(record["loss"] for record in records if record["loss"]):
        console.print(f"objective: {line}", highlight=False)
    for words, dofs in _intervals(records).items():
        span = f"{dofs[0]:g}" if len(dofs) == 1 else f"{dofs[0]:g} to {dofs[-1]:g}"
        console.print(f"interval: {words}; residual degrees of freedom: {span}", highlight=False)


def _notes(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """The legend, and each reason once with the number of fits it holds for."""
    _legend(console, records)
    remarks: dict[str, int] = {}
    for record in records:
        for reason in [*record["audit"]["reasons"], *record["warnings"]]:
            line = f"{record['law']}, {record['audit']['verdict']}: {reason}"
            remarks[line] = remarks.get(line, 0) + 1
    for line, count in remarks.items():
        console.print(escape(line) + (f" ({count} fits)" if count > 1 else ""), highlight=False)
    _left_out(console, records)


def _left_out(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    left_out: dict[str, int] = {}
    for record in records:
        for reason, count in record["left_out"].items():
            left_out[reason] = max(left_out.get(reason, 0), count)
    for reason, count in left_out.items():
        console.print(f"left out: {count} runs that ended as {reason}", highlight=False)
