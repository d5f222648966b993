"""What scoring leaves behind for the pages: a submission's recomputed errors and its fits, in three files at most."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path, digest, write_text
from scisci.contracts.results import RESULTS_SCHEMA, read_results
from scisci.leaderboard.board import Status
from scisci.leaderboard.submission import Submission

SCORES_VERSION = 1


@dataclass(frozen=True)
class Scored:
    """A submission with its recomputed scores; all of it follows from the submission, the labels and the version.

    `table` and `sealed_table` are results tables (scisci.contracts.results) whose architecture is the slug, `analysis`
    are the records of scisci.leaderboard.analysis, `digest` is sha256 over the submission's files.
    """

    slug: str
    submission: Submission
    table: pa.Table
    digest: str
    scoring_version: int
    status: Status = "recomputed"
    flags: tuple[str, ...] = ()
    analysis: tuple[Mapping[str, Any], ...] = ()
    trivial: Mapping[tuple[str, str, int], Mapping[str, float]] = field(default_factory=dict)
    """(data set, split, first n samples) → metric → error of a trivial predictor"""
    sealed_table: pa.Table | None = None
    sealed_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """data set → fingerprints of the `inputs` and `labels` of the sealed test set that it was scored by"""

    def with_sealed(self, table: pa.Table, dataset: str, by: Mapping[str, str]) -> Scored:
        """These scores with those on a sealed test set of one data set, in place of earlier ones on that data set."""
        tables = [table]
        if self.sealed_table is not None:
            tables.append(self.sealed_table.filter(pc.not_equal(self.sealed_table["dataset"], dataset)))
        return replace(self, sealed_table=pa.concat_tables(tables), sealed_by={**self.sealed_by, dataset: by})


class _Trivial(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dataset: str
    split: str
    samples: int
    errors: dict[str, float]


class _File(BaseModel):
    """`<slug>.json`; the sha256 of the tables beside it tell whether they belong to it."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int
    slug: str
    digest: str
    scoring_version: int
    status: Status
    flags: tuple[str, ...]
    submission: Submission
    analysis: tuple[dict[str, Any], ...]
    trivial: tuple[_Trivial, ...]
    table: str
    sealed_table: str | None
    sealed_by: dict[str, dict[str, str]]


def write_scores(folder: Path | str, scored: Scored) -> None:
    """Write `<slug>.json`, `<slug>.parquet` and, with a sealed table, `<slug>.sealed.parquet` into `folder`.

    The same scores give the same bytes. The JSON comes last, so that an interrupted write is noticed on reading.
    """
    folder = Path(folder)
    table, sealed = _paths(folder, scored.slug)
    tables = {"table": _write_table(table, scored.table), "sealed_table": None}
    if scored.sealed_table is not None:
        tables["sealed_table"] = _write_table(sealed, scored.sealed_table)
    content = {
        "schema_version": SCORES_VERSION,
        "slug": scored.slug,
        "digest": scored.digest,
        "scoring_version": scored.scoring_version,
        "status": scored.status,
        "flags": list(scored.flags),
        "submission": scored.submission.model_dump(mode="json"),
        "analysis": [dict(record) for record in scored.analysis],
        "trivial": _trivial_records(scored.trivial),
        "sealed_by": {name: dict(by) for name, by in scored.sealed_by.items()},
    }
    text = json.dumps(content | tables, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(folder / f"{scored.slug}.json", text + "\n")
    if scored.sealed_table is None:
        sealed.unlink(missing_ok=True)


def read_scores(folder: Path | str) -> Iterator[Scored]:
    """All scores of a folder in the order of their slugs; a damaged file is a `UserError` that names it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there are no scores at {folder}; write them with 'scisci leaderboard score'")
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        yield _read(path)


def read_score(folder: Path | str, slug: str) -> Scored:
    """The scores of one submission; `UserError` where there are none."""
    path = Path(folder) / f"{slug}.json"
    if not path.exists():
        raise UserError(f"{folder} has no public scores of {slug!r}; score the submission itself first")
    return _read(path)


def _paths(folder: Path, slug: str) -> tuple[Path, Path]:
    return folder / f"{slug}.parquet", folder / f"{slug}.sealed.parquet"


def _write_table(path: Path, table: pa.Table) -> str:
    """Write a results table; its sha256."""
    with atomic_path(path) as temporary:
        pq.write_table(table.select(RESULTS_SCHEMA.names).cast(RESULTS_SCHEMA), temporary)
        return digest(temporary.read_bytes())


def _trivial_records(errors: Mapping[tuple[str, str, int], Mapping[str, float]]) -> list[dict[str, Any]]:
    return [
        {"dataset": dataset, "split": split, "samples": samples, "errors": dict(of_metrics)}
        for (dataset, split, samples), of_metrics in sorted(errors.items())
    ]


def _read(path: Path) -> Scored:
    again = "write it again with 'scisci leaderboard score'"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON; {again}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCORES_VERSION:
        raise UserError(f"{path} holds scores of version {version}, not {SCORES_VERSION}; {again}")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place}: {first['msg']}; {again}") from error
    if file.slug != path.stem:
        raise UserError(f"{path} holds the scores of {file.slug!r}; {again}")
    table, sealed = _paths(path.parent, file.slug)
    return Scored(
        slug=file.slug,
        submission=file.submission,
        table=_read_table(table, file.table),
        digest=file.digest,
        scoring_version=file.scoring_version,
        status=file.status,
        flags=file.flags,
        analysis=file.analysis,
        trivial=_trivial_mapping(file.trivial),
        sealed_table=None if file.sealed_table is None else _read_table(sealed, file.sealed_table),
        sealed_by=file.sealed_by,
    )


def _read_table(path: Path, expected: str) -> pa.Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; write it with 'scisci leaderboard score'") from error
    if digest(content) != expected:
        raise UserError(f"{path} is not the table that was scored; write it again with 'scisci leaderboard score'")
    return read_results(path)


def _trivial_mapping(records: tuple[_Trivial, ...]) -> dict[tuple[str, str, int], dict[str, float]]:
    return {(one.dataset, one.split, one.samples): one.errors for one in records}
