"""`scisci leaderboard`: make, check and score submissions, and build the pages that rank them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path("leaderboard")
SUBMISSIONS, SCORES, BOARD, REPRODUCED = (ROOT / name for name in ("submissions", "scores", "board.yaml", "reproduced"))
Add = Callable[[str, str], argparse.ArgumentParser]


def main(argv: list[str]) -> None:
    """Run `scisci leaderboard ...`."""
    options = _parser().parse_args(argv)
    options.run(options)


def _command(name: str) -> Callable[[argparse.Namespace], None]:
    """The function behind a command, imported when it runs: --help needs no torch."""

    def run(options: argparse.Namespace) -> None:
        getattr(import_module("scisci.leaderboard.commands"), name)(options)

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scisci leaderboard", description="Submit models, recompute their scores, rank them and look."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.set_defaults(run=_command(name))
        return command

    _add_submitting(add)
    _add_scoring(add)
    _add_sealing(add)
    return parser


def _add_submitting(add: Add) -> None:
    """What a submitter needs."""
    new = add("new", "start a submission: a commented submission.yaml, and a run from predictions files")
    new.add_argument("folder", type=Path, help="new folder, or one that holds a submission; its name is the slug")
    new.add_argument("--predictions", type=Path, nargs="+", metavar="FILE", help="add a run of these, a file per split")
    new.add_argument("--run", metavar="NAME", help="name of the added run (default: size, data and seed)")
    new.add_argument("--dataset", metavar="NAME", help="data set that the predictions are for")
    new.add_argument("--size", help="name of the model's size, such as 30k")
    new.add_argument("--params", type=int, metavar="N", help="number of parameters")
    new.add_argument("--data", type=int, metavar="N", help="unique training samples")
    new.add_argument("--samples-seen", type=int, metavar="N", help="training samples seen, repetitions included")
    new.add_argument("--flops", type=float, help="training FLOPs, measured")
    new.add_argument("--seed", type=int, help="seed of the training")
    new.add_argument("--seconds", type=float, help="wall seconds of training and evaluation")
    new.add_argument("--device", help="what it ran on")

    pack = add("pack", "make a submission of every architecture of a finished sweep")
    pack.add_argument("sweep", type=Path, help="folder of 'scisci sweep run'")
    pack.add_argument("--out", type=Path, default=SUBMISSIONS, help="folder of submissions (default: %(default)s)")
    pack.add_argument("--about", type=Path, metavar="FILE", help="YAML with authors, licence, summary and the like")
    pack.add_argument("--inputs", type=Path, metavar="STORE", help="predict these inputs of a sealed test set instead")

    check = add("check", "say everything that is wrong with submissions, and what looks suspicious")
    _folders(check)
    check.add_argument("--labels", type=Path, metavar="STORE", help="private labels, for predictions of sealed inputs")
    add("schema", "print the JSON Schema of submission.yaml")


def _add_scoring(add: Add) -> None:
    """What a board's maintainer needs."""
    score = add("score", "recompute every number of submissions from their predictions and the labels")
    _folders(score)
    _scores(score)
    score.add_argument("--labels", type=Path, metavar="STORE", help="score against private labels of a sealed test set")

    build = add("build", "write the pages: static, with nothing fetched when they are opened")
    _scores(build)
    build.add_argument("--out", type=Path, default=Path("site"), help="folder of the pages (default: %(default)s)")
    build.add_argument(
        "--board", type=Path, metavar="FILE", help=f"the board's set-up (default: {BOARD} if it is there)"
    )
    build.add_argument("--reference", metavar="SLUG", help="compare with this model where the set-up names none")
    build.add_argument(
        "--reproduced", type=Path, default=REPRODUCED, help="records of 'reproduce' (default: %(default)s)"
    )

    reproduce = add("reproduce", "hold a retrained model against a submission, and record if they agree")
    reproduce.add_argument("folder", type=Path, help="the submission")
    reproduce.add_argument("again", type=Path, help="submission folder packed from runs of the maintainer's own")
    reproduce.add_argument("--out", type=Path, default=REPRODUCED, help="folder of the records (default: %(default)s)")


def _add_sealing(add: Add) -> None:
    """Hidden, renewable test sets and what is published of them."""
    seal = add("seal", "make a fresh test set with a data set's shifts: inputs to publish, labels to keep")
    seal.add_argument("dataset", help="a simulated data set")
    seal.add_argument(
        "--seed-file", type=Path, required=True, metavar="FILE", help="secret, from 'openssl rand -hex 32'"
    )
    seal.add_argument("--out", type=Path, required=True, help="new folder for inputs.h5 and labels.h5")
    seal.add_argument("--samples", type=int, metavar="N", help="of every split (default: as many as the data set has)")
    seal.add_argument("--splits", nargs="+", metavar="NAME", help="of the test splits (default: all)")
    seal.add_argument("--horizon", type=int, metavar="STEPS", help="of series: steps at the end that are hidden")

    key = add("key", "make an Ed25519 key pair to sign summaries with")
    key.add_argument("path", type=Path, help="private key; the public one is written beside it, with .pub")

    sign = add("sign", "write a signed summary of scores on sealed test sets, without labels")
    _scores(sign)
    sign.add_argument("--key", type=Path, required=True, help="private key")
    sign.add_argument("--out", type=Path, required=True, metavar="FILE", help="the summary")

    verify = add("verify", "check that a summary is what the owner of a key signed")
    verify.add_argument("summary", type=Path, metavar="FILE")
    verify.add_argument("--key", type=Path, required=True, help="public key")


def _folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="submissions, each a folder")


def _scores(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scores", type=Path, default=SCORES, help="folder of the scores (default: %(default)s)")
