"""ETT, the electricity transformer tables: `date` and seven columns, hourly or every 15 minutes (.csv).

Zhou et al., AAAI 2021. The official borders, counted in months of 30 days: 12 for `train`, 4 for `val`, 4 for `test`;
rows after them are not used. In the official code `val` and `test` begin one context before their border, so that the
first forecast of each is for its first row: here they do so by `--key context=STEPS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.samples import SeriesSample
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Counted, Frame, undamaged
from scisci.sources.labels import NONE
from scisci.sources.series import CONTEXT, Frequency, named, piece, whole
from scisci.sources.series_rows import columns
from scisci.sources.series_tables import OPTIONS, split_names, table_frame, whole_table

MONTH = 30 * 24
BORDERS = {"train": (0, 12), "val": (12, 16), "test": (16, 20)}
STEPS_PER_HOUR = {"h": 1, "15min": 4}
LABELS = {"time": "date", "target": NONE, **OPTIONS, "split": NONE, "context": CONTEXT}


def read_ett(path: Path | str, keys: Mapping[str, str] | None = None) -> Counted:
    """Read one split of a file, or with `split=none` all of it, as one series of as many channels as it has columns.

    `keys` maps `time` to a column, `target` and `covariates` to those that are read, `split` to train, val or test, and
    `context` to the steps before the border with which val and test begin, which are the last of the split before.
    """
    path, labels = Path(path), named(chosen(LABELS, keys or {}), "time")
    if (split := labels.get("split")) not in (None, *BORDERS):
        raise unknown_name("split of ETT", str(split), BORDERS)
    return Counted(undamaged((_frame(path, split, labels) for _ in range(1)), path, "item"), 1)


def _frame(path: Path, split: str | None, labels: Mapping[str, str]) -> Frame | BadFrame:
    covariates = split_names(labels, "covariates")
    others = [name for name in columns(path) if name not in (labels["time"], *covariates)]
    target = split_names(labels, "target") or others
    rows = whole_table(path, target, covariates, labels)
    frame = table_frame(f"{split or 'series'} of {path}", path.stem, rows, len(target), Frequency(labels))
    if isinstance(frame, BadFrame) or split is None or not isinstance(frame.sample, SeriesSample):
        return frame
    if frame.sample.freq not in STEPS_PER_HOUR:
        raise UserError(
            f"{path} has the frequency {frame.sample.freq}, where ETT's borders are for hours and for 15 minutes;"
            " import it with --key split=none, or as series-wide"
        )
    month, length = MONTH * STEPS_PER_HOUR[frame.sample.freq], frame.sample.target.shape[1]
    begin, end = (border * month for border in BORDERS[split])
    if length < end:
        raise UserError(f"{path} has {length} of the {end} rows to the end of {split}; get it again")
    context = min(begin, whole(labels.get("context", "0"), "context"))
    return replace(frame, sample=piece(frame.sample, begin - context, end))
