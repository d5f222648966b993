"""Folders that Hugging Face's `datasets` saves to disk, with a series in each row, as LOTSA has them.

Woo et al., arXiv:2402.02592. `state.json` lists the Arrow files, `dataset_info.json` their columns: `item_id`, `start`,
`freq`, `target` (a list, or a list per channel) and maybe `past_feat_dynamic_real`. Only pyarrow reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.sources.frames import BadFrame, Frame, undamaged
from scisci.sources.series import Entries, Frequency
from scisci.sources.series_arrow import arrow_rows, arrow_schema

STATE, INFO = "state.json", "dataset_info.json"


def read_lotsa(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream a saved folder; the group is `item_id`.

    `keys` are those of GluonTS's fields; categories are not read, and `keep` names scalars that become metadata.
    """
    path, keys = Path(path), keys or {}
    labels = Entries.labels(keys)
    entries = Entries(labels, keys, Frequency(labels))
    return undamaged(_frames(_files(path), entries), path, "item")


def _frames(files: list[Path], entries: Entries) -> Iterator[Frame | BadFrame]:
    number = 0
    for file in files:
        for row, entry in enumerate(arrow_rows(file, entries.names), 1):
            yield entries.frame(entry, number, f"row {row} of {file}")
            number += 1


def _files(folder: Path) -> list[Path]:
    """The Arrow files that the folder's state lists, each with the columns that its description promises."""
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder that save_to_disk made")
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        raise UserError(f"{folder} holds several data sets; give one of its folders: {', '.join(splits)}")
    state, promised = _json(folder / STATE), _json(folder / INFO).get("features")
    names = [str(entry.get("filename")) for entry in state.get("_data_files") or []]
    if not promised or not names:
        lacking = f"{INFO} has no features" if names else f"{STATE} lists no data files"
        raise UserError(f"{folder} has no schema: {lacking}; save it again with save_to_disk")
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} holds indices into its rows; save it after flatten_indices()")
    for file in (files := [folder / name for name in names]):
        if not file.is_file():
            raise UserError(f"{folder} lacks {file.name}, which {STATE} lists; get it again")
        if absent := sorted(set(promised) - set(arrow_schema(file).names)):
            raise UserError(f"{file} has no column {absent[0]}, which {INFO} promises; get it again")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name}, which has its schema; give a folder saved by save_to_disk"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no JSON object ({error}); get it again") from error
