"""A submission by hand: a commented `submission.yaml` to fill in, and runs added from predictions files."""

from __future__ import annotations

import datetime
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating, write_text
from scisci.data.library import datasets, read_card
from scisci.leaderboard.about import checked
from scisci.leaderboard.reading import FILE
from scisci.leaderboard.submission import Run, slug_fault
from scisci.tasks.scoring import View, reading

TEMPLATE = """\
# One model, at one or more sizes, amounts of data and seeds. Fill in what is empty: 'scisci leaderboard check' says
# what is missing or wrong, and 'scisci leaderboard new' with --predictions adds a run.
schema_version: 1
name:                # as the tables show it
family:              # equivariant, invariant, unconstrained, learned symmetry or baseline
symmetry: {{}}         # group: exact, approximate, learned or none; such as {{rotation: exact, permutation: exact}}
summary:             # a sentence or two on what the model is
authors:
- name: anonymous    # everyone who made it
  affiliation:
date: {date}
licence:             # of code and weights: an SPDX identifier, or NOASSERTION
links:               # URLs, as far as there are any
  paper:
  code:
  weights:
  logs:
training_data:
  description:       # what the model was trained on, pre-training included
  contamination:     # none known, possible or known: may samples of the test splits be among that? It costs nothing
  statement:         # how overlap was looked for, and what was found
tuning:
  trials:            # training runs made to choose hyper-parameters, all sizes together; empty where nobody counted
  selected_on:       # the split and metric that chose, such as 'val, force_mae'
  description: not given
hardware:
  description:       # what all runs ran on
  device_hours:      # of all runs together
  cost_usd:
# At least 3 sizes, amounts of data or of compute make a scaling law, and 1 an entry in the table.
runs: []
"""


def new(folder: Path) -> Path:
    """Make `folder` with a `submission.yaml` to fill in; returns its path. `UserError` if there is one, or no slug."""
    path = folder / FILE
    if fault := slug_fault(Path(os.path.abspath(folder)).name):
        raise UserError(fault)
    if path.exists():
        raise UserError(f"{path} exists already; add runs to it, or choose another folder")
    write_text(path, TEMPLATE.format(date=datetime.date.today()))
    return path


def add_run(folder: Path, predictions: Sequence[Path], **about: Any) -> Run:
    """Add a run to a submission, from predictions files of `scisci predict` or `evaluate`, one per split.

    `about` are keys of `Run` with what the files do not say: `size`, `params`, `data`, `samples_seen`, `seconds`,
    `device`; perhaps `flops`, `seed` and others. The data set is found by its fingerprint unless given, and the run is
    called `<size>-<data>-<seed>` unless given. Comments in `submission.yaml` stay. Raises `UserError` for files that do
    not belong together, and a run that is there already; then nothing is written.
    """
    splits, fingerprint, horizon = _read(predictions)
    about = {name: value for name, value in about.items() if value is not None}
    if "dataset" not in about:
        about["dataset"] = _named(fingerprint)
    about.setdefault("run", "-".join(str(about.get(name, 0)) for name in ("size", "data", "seed")))
    about.setdefault("seed", 0)
    counts = {split: count for split, (_, count) in splits.items()}
    with checked("the run", Run):
        run = Run.model_validate({**about, "fingerprint": fingerprint, "horizon": horizon, "splits": counts})
    text = _with_run(folder / FILE, run)
    final = folder / "predictions" / run.run
    temporary = final.with_name(f".{run.run}.{os.getpid()}.tmp")
    if final.exists():
        raise UserError(f"{final} exists already; remove it, or give the run another name")
    try:
        with creating(final):
            temporary.mkdir(parents=True)
            for split, (path, _) in splits.items():
                shutil.copyfile(path, temporary / f"{split}.h5")
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_text(folder / FILE, text)
    return run


def _read(predictions: Sequence[Path]) -> tuple[dict[str, tuple[Path, int]], str, int | None]:
    """Of predictions files, split → file and number of samples; of what data they are; and steps forecast of series."""
    splits: dict[str, tuple[Path, int]] = {}
    fingerprints, horizons = set(), set()
    for path in predictions:
        with reading(path) as file:
            if file.attrs.get("format") != "scisci-predictions" or "ids" not in file:
                raise UserError(f"{path} is not a predictions file; write one with 'scisci predict' or 'evaluate'")
            split = str(file.attrs["split"])
            if split in splits:
                raise UserError(f"{path} and {splits[split][0]} are both of {split!r}; give one file of each split")
            splits[split] = path, len(np.unique(file["ids"][...]))
            fingerprints.add(str(file.attrs["fingerprint"]))
            horizons.add(View.of(file, path).horizon)
    if len(fingerprints) != 1:
        raise UserError("the predictions are not of one data set (their fingerprints differ); make a run of each")
    if len(horizons) != 1:
        raise UserError("the predictions forecast different numbers of steps; make a submission of each")
    return splits, fingerprints.pop(), horizons.pop()


def _named(fingerprint: str) -> str:
    """The data set with that fingerprint."""
    for name in datasets():
        if read_card(name).fingerprint == fingerprint:
            return name
    raise UserError("no card has the fingerprint of these predictions; name their data set")


def _with_run(path: Path, run: Run) -> str:
    """The text of `submission.yaml` with a run more."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 110, True
    try:
        content = yaml.load(path.read_text(encoding="utf-8"))
        runs = content["runs"]
        names = [one["run"] for one in runs]
    except OSError as error:
        raise UserError(f"no submission in {path.parent}; make one with 'scisci leaderboard new'") from error
    except (YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read; 'scisci leaderboard check' says what is wrong") from error
    if run.run in names:
        raise UserError(f"{path} has a run {run.run!r} already; give it another name")
    runs.append(run.model_dump(mode="json", exclude_defaults=True))
    runs.fa.set_block_style()
    text = io.StringIO()
    yaml.dump(content, text)
    return text.getvalue()
