"""GluonTS data sets: an entry per series with `start`, `target`, `item_id` and `feat_*`, as JSON lines or Arrow.

A file (.json, .jsonl, either gzipped; .arrow, .feather, .parquet), a folder of such files, or a data set as
`TrainDatasets.save` writes it: `metadata.json` with the frequency beside the folders `train` and `test`. The series of
`test` go on from those of `train` by the `prediction_length` of the metadata.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.data.samples import SeriesSample
from scisci.sources.frames import BadFrame, Frame, undamaged
from scisci.sources.labels import NONE
from scisci.sources.series import CONTEXT, Entries, Frequency, piece, whole
from scisci.sources.series_arrow import arrow_rows, arrow_schema

LINES = (".json", ".jsonl")
ARROW = (".arrow", ".feather", ".parquet")
METADATA = "metadata.json"


def read_gluonts(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream a GluonTS file or folder; the group is `item_id`, or the number of the entry where there is none.

    `feat_dynamic_real` and `past_feat_dynamic_real` become covariates, cut to the length of the target. Categories are
    no quantities and are not read; `keep` names static features that become metadata columns: a number, a word, or a
    list of one. The frequency is `freq` of the entry, of the Arrow schema or of the metadata, or `--key freq`.

    `split` is `train` or `test`: that folder of a saved data set. Each series of `test` is cut to its last `horizon`
    steps (default: `prediction_length`) and the `context` steps before them, which may be in `train` too.
    """
    path, keys = Path(path), keys or {}
    labels = Entries.labels(keys, split=NONE, context=CONTEXT, horizon=NONE)
    split = labels.get("split")
    metadata = _metadata(path)
    entries = Entries(labels, keys, Frequency(labels, metadata.get("freq")))
    frames = undamaged(_frames(path if split is None else path / split, entries), path, "item")
    if split != "test":
        return frames
    horizon = labels.get("horizon", metadata.get("prediction_length"))
    if horizon is None:
        raise UserError(f"{path / METADATA} has no prediction_length, which test goes on for; give --key horizon=STEPS")
    steps = whole(labels.get("context", "0"), "context") + whole(str(horizon), "horizon")
    return (_last(frame, steps) for frame in frames)


def _frames(path: Path, entries: Entries) -> Iterator[Frame | BadFrame]:
    number = 0
    for file in _files(path):
        place, common, rows = "line", {}, _lines(file)
        if file.suffix in ARROW:
            said = arrow_schema(file).metadata or {}
            place, common = "row", {"freq": said[b"freq"].decode()} if b"freq" in said else {}
            rows = enumerate(arrow_rows(file, entries.names), 1)
        for row, entry in rows:
            yield entries.frame({**common, **entry}, number, f"{place} {row} of {file}")
            number += 1


def _files(path: Path) -> list[Path]:
    """The data files at a path; hidden ones and metadata are none."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("[!.]*") if _kind(file) in (*LINES, *ARROW) and file.name != METADATA)
    if not found:
        raise UserError(f"{path} has no files of series ({', '.join((*LINES, *ARROW))}); give a folder that has")
    return found


def _kind(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UserError(f"line {number} of {path} is no JSON ({error}); correct the file") from error
            if not isinstance(entry, dict):
                raise UserError(
                    f"line {number} of {path} is no JSON object with the fields of a series; correct the file"
                )
            yield number, entry


def _metadata(path: Path) -> dict[str, Any]:
    """`metadata.json` of the data set that a path is, or is in."""
    for folder in (path, path.parent) if path.is_dir() else (path.parent, path.parent.parent):
        for file in (folder / METADATA, folder / "metadata" / METADATA):
            if file.is_file():
                try:
                    return dict(json.loads(file.read_bytes()))
                except (ValueError, TypeError) as error:
                    raise UserError(f"{file} is no JSON object ({error}); get it again") from error
    return {}


def _last(frame: Frame | BadFrame, steps: int) -> Frame | BadFrame:
    """The last steps of a series, or all of it if there are no more."""
    if not isinstance(frame, Frame) or not isinstance(frame.sample, SeriesSample):
        return frame
    length = frame.sample.target.shape[1]
    return replace(frame, sample=piece(frame.sample, max(0, length - steps), length))
