"""What the sub-commands of `scisci leaderboard` do, a function each."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from scisci.contracts.errors import UserError
from scisci.leaderboard.cli import BOARD
from scisci.leaderboard.scores import Scored, read_score, read_scores, write_scores

RUN_OPTIONS = ("run", "dataset", "size", "params", "data", "samples_seen", "flops", "seed", "seconds", "device")


def pack(options: argparse.Namespace) -> None:
    """Submissions from a sweep."""
    from scisci.leaderboard.packing import pack as make

    folders = make(options.sweep, options.out, options.about, options.inputs)
    for folder in folders:
        print(folder)
    if options.about is None:
        print("authors are anonymous and no licence is asserted; say more in submission.yaml, or with --about")


def check(options: argparse.Namespace) -> None:
    """Everything that is wrong; exit code 2 if anything is."""
    from scisci.leaderboard.checking import check as look

    refused = 0
    for folder in options.folders:
        found = look(folder)
        print(f"{folder}:", *found.lines(), sep="\n  ")
        refused += bool(found.refused)
    if refused:
        raise UserError(f"{refused} of {len(options.folders)} submissions are refused; put right what is listed")


def schema(_: argparse.Namespace) -> None:
    """The JSON Schema."""
    from scisci.leaderboard.reading import json_schema

    print(json.dumps(json_schema(), indent=2))


def score(options: argparse.Namespace) -> None:
    """Scores of each submission: public ones anew, or those on a sealed test set beside the public ones."""
    for folder in options.folders:
        folder = Path(os.path.abspath(folder))  # which follows no link, so that a linked folder is refused
        scored = recomputed(folder) if options.labels is None else _sealed(folder, options.labels, options.scores)
        write_scores(options.scores, scored)
        runs = len(set((scored.sealed_table or scored.table)["run"].to_pylist()))
        print(f"{options.scores / scored.slug}.json: {runs} runs scored", *scored.flags, sep="\n  flagged  ")


def recomputed(folder: Path) -> Scored:
    """All that follows from a submission and public labels; `UserError` if anything about it is wrong."""
    from scisci.leaderboard.analysis import analyse
    from scisci.leaderboard.checking import check as look
    from scisci.leaderboard.reading import read_submission
    from scisci.leaderboard.scoring import SCORING_VERSION, digest, trivials

    found = look(folder)
    found.require()
    assert found.table is not None
    return Scored(
        slug=folder.name,
        submission=read_submission(folder),
        table=found.table,
        digest=digest(folder),
        scoring_version=SCORING_VERSION,
        flags=tuple(map(str, found.flagged)),
        analysis=tuple(analyse(found.table)),
        trivial=trivials(folder),
    )


def _sealed(folder: Path, labels: Path, scores: Path) -> Scored:
    """The scores there are of a submission, with those of its predictions for sealed inputs."""
    from scisci.data.store import Store
    from scisci.leaderboard.scoring import score as recompute

    public = read_score(scores, folder.name)
    table, store = recompute(folder, labels), Store(labels)
    attributes = store.h5(0).attrs
    by = {"inputs": str(attributes["sealed_inputs"]), "labels": store.fingerprint}
    return public.with_sealed(table, str(attributes["dataset"]), by)


def build(options: argparse.Namespace) -> None:
    """The pages."""
    from scisci.leaderboard.config import load_config
    from scisci.leaderboard.ranks import boards
    from scisci.leaderboard.reproducing import reproduced
    from scisci.leaderboard.site import build as write

    setup = options.board or (BOARD if BOARD.exists() else None)
    config = load_config(setup) if setup else None
    found = boards(read_scores(options.scores), config, reproduced(options.reproduced), options.reference)
    write(found, options.out)
    print(options.out / "index.html")


def new(options: argparse.Namespace) -> None:
    """A submission.yaml to fill in, or a run more in one that there is."""
    from scisci.leaderboard import scaffold

    if not (options.folder / "submission.yaml").exists():
        print(scaffold.new(options.folder))
    if options.predictions:
        about = {name: getattr(options, name) for name in RUN_OPTIONS}
        print(f"added run {scaffold.add_run(options.folder, options.predictions, **about).run}")


def reproduce(options: argparse.Namespace) -> None:
    """Submitted and retrained errors, and whether they agree."""
    from scisci.leaderboard.reproducing import reproduce as compare

    record = compare(Path(os.path.abspath(options.folder)), Path(os.path.abspath(options.again)), options.out)
    print(*record.comparisons, record.verdict, *record.reasons, sep="\n")


def seal(options: argparse.Namespace) -> None:
    """Inputs and labels of a sealed test set."""
    from scisci.leaderboard.sealing import seal as make

    make(options.dataset, options.seed_file, options.out, options.samples, options.splits, options.horizon, print)
    print(f"publish {options.out / 'inputs.h5'}; keep {options.out / 'labels.h5'} and the seed to yourself")


def key(options: argparse.Namespace) -> None:
    """A key pair."""
    from scisci.leaderboard.signing import make_key

    print(f"publish {make_key(options.path)}; keep {options.path} to yourself")


def sign(options: argparse.Namespace) -> None:
    """A signed summary of sealed scores."""
    from scisci.leaderboard.signing import sign as write
    from scisci.leaderboard.signing import summary

    write(summary(read_scores(options.scores)), options.key, options.out)
    print(options.out)


def verify(options: argparse.Namespace) -> None:
    """What the owner of a key signed."""
    from scisci.leaderboard.signing import verify as checked

    print(json.dumps(checked(options.summary, options.key), indent=1))
