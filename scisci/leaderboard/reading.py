"""Reading `submission.yaml`, which anybody may have written: plain data, of bounded size, and every key known."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.library import datasets, open_dataset
from scisci.data.store import Store
from scisci.leaderboard.findings import Finding, Findings
from scisci.leaderboard.hdf5_faults import quoted
from scisci.leaderboard.safe_hdf5 import place_fault
from scisci.leaderboard.submission import SCHEMA_VERSION, Run, Submission, repeated, slug_fault

FILE = "submission.yaml"
MOST_BYTES = 4 * 2**20
MOST_NODES = 300_000
WIDEST = 20_000
DEEPEST = 16
MOST_FAULTS = 50


@dataclass(frozen=True)
class Loaded:
    """A submission as far as it can be read: all of it or None, the runs that are well formed, and what is wrong."""

    submission: Submission | None
    runs: tuple[Run, ...]
    names: frozenset[str]
    """of all runs, well formed or not"""
    faults: tuple[Finding, ...]


def read_submission(folder: Path) -> Submission:
    """Read a submission's description; a `UserError` names the first place that is wrong."""
    loaded = load(folder)
    Findings(loaded.faults).require()
    assert loaded.submission is not None
    return loaded.submission


def open_listed(name: str) -> Store:
    """Open a data set of `scisci data list`; never a file of that name, which anybody may have put there."""
    if name not in (known := datasets()):
        raise unknown_name("data set", name, known)
    return open_dataset(name)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `submission.yaml`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Submission.model_json_schema()}


def load(folder: Path) -> Loaded:
    """Read a submission's description as far as it goes, with all that is wrong in it."""
    folder = Path(os.path.abspath(folder))
    slug = slug_fault(folder.name)
    faults = [Finding("folder", slug)] if slug else []
    content: Any = None
    try:
        content = _parse(folder)
    except UserError as error:
        faults.append(Finding(FILE, str(error)))
        return Loaded(None, (), frozenset(), tuple(faults))
    if isinstance(version := content.get("schema_version", SCHEMA_VERSION), int) and version > SCHEMA_VERSION:
        newer = f"schema_version is {version}, of a newer scisci; update with 'pip install -U scisci'"
        return Loaded(None, (), frozenset(), (*faults, Finding(FILE, newer)))
    submission: Submission | None = None
    runs: Sequence[Run] = ()
    try:
        submission = Submission.model_validate(content)
        runs = submission.runs
    except ValidationError as error:
        listed = content.get("runs")
        runs = [run for one in listed if (run := _well_formed(one))] if isinstance(listed, list) else []
        faults += [Finding(FILE, clause) for clause in _clauses(error, content)]
        if (twice := repeated(runs)) and not any(twice in fault.what for fault in faults):
            faults.append(Finding(FILE, twice))
    listed = content.get("runs") if isinstance(content.get("runs"), list) else []
    names = frozenset(str(one.get("run")) for one in listed if isinstance(one, dict))
    return Loaded(submission, tuple(runs), names, tuple(faults))


def _well_formed(one: Any) -> Run | None:
    try:
        return Run.model_validate(one)
    except ValidationError:
        return None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data alone; a key that occurs twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise UserError(f"{where} has a key that is not a plain name; write 'key: value'")
            if key.value in seen:
                raise UserError(f"{where} has the key {quoted(key.value)} a second time; keep one")
            seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def _parse(folder: Path) -> dict[str, Any]:
    """The content of `submission.yaml`; `UserError` if it is anything but plain data of bounded size."""
    path = folder / FILE
    if fault := place_fault(path, folder, MOST_BYTES):
        raise UserError(f"the file {fault}")
    try:
        text = path.read_bytes().decode()
        _check_events(text)
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader)
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(f"it is not valid YAML{_place(error)}; correct it") from error
    except (ValueError, OverflowError) as error:
        raise UserError("it has a date or number that cannot be; correct it") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError("it is not a list of 'key: value'; make one with 'scisci leaderboard new'")
    return content


def _check_events(text: str) -> None:
    """`UserError` for what YAML can be made to grow by, before anything is made of it."""
    inside = [0]
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        where = f"line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if getattr(event, "anchor", None) is not None:
            raise UserError(f"{where} has an anchor or alias; write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise UserError(f"{where} has the tag {quoted(tag)}; write plain values")
        inside[-1] += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append(0)
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
        if len(inside) > DEEPEST:
            raise UserError(f"{where} nests more than {DEEPEST} levels deep; keep to the schema")
        if count > MOST_NODES or inside[-1] > WIDEST:
            raise UserError("it has more values than any submission; submit fewer runs at once")


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    return (f" in line {mark.line + 1}" if mark else "") + (f" ({quoted(problem)[1:-1]})" if problem else "")


def _clauses(error: ValidationError, content: Any) -> Iterator[str]:
    """Each error as a clause with its place; of very many the first."""
    errors = error.errors(include_url=False, include_context=False)
    for one in errors[:MOST_FAULTS]:
        yield f"{_where(one['loc'], content)}{_what(one)}"
    if len(errors) > MOST_FAULTS:
        yield f"{len(errors) - MOST_FAULTS} more errors; correct these first"


def _where(loc: Sequence[int | str], content: Any) -> str:
    """A place as people write it: 'runs[3] (egnn-30k).splits.test: '."""
    found = ""
    for part in loc:
        if part == "[key]":
            continue
        found += f"[{part}]" if isinstance(part, int) else f".{quoted(part)[1:-1]}"
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(part, int) and isinstance(content, dict) and isinstance(name := content.get("run"), str):
            found += f" ({quoted(name)[1:-1]})"
    return f"{found.lstrip('.')}: " if found else ""


def _what(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing; give it"
    if error["type"] == "extra_forbidden":
        return str(unknown_name("key", quoted(error["loc"][-1])[1:-1], _keys(error["loc"][:-1])))
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}{'' if ';' in message else '; correct it'}"


def _keys(loc: Sequence[int | str]) -> list[str]:
    """The keys that are known at a place of the schema."""
    model: type[BaseModel] = Submission
    for part in loc:
        if isinstance(part, str):
            kinds = [model.model_fields[part].annotation]
            while kinds and not (isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)):
                kinds = [*get_args(kinds[0]), *kinds[1:]]
            model = kinds[0]  # type: ignore[assignment]
    return list(model.model_fields)
