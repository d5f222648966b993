"""The command `scisci`: one entry point; each sub-command loads its folder only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

from scisci.contracts.errors import DISK_FULL, UserError, unknown_name

COMMANDS = {
    "fit": ("scisci.tasks.cli", "train a model, or go on with an interrupted run"),
    "validate": ("scisci.tasks.cli", "measure a trained model on the validation split"),
    "test": ("scisci.tasks.cli", "measure a trained model on test and every ood_* split"),
    "predict": ("scisci.tasks.cli", "write a trained model's predictions"),
    "baseline": ("scisci.tasks.baselines.cli", "fit and measure a predictor that a network must beat"),
    "evaluate": ("scisci.tasks.evaluate_cli", "measure any ASE calculator or GluonTS predictor on a data set"),
    "data": ("scisci.cli_data", "list, verify, download, import, generate and split data sets"),
    "models": ("scisci.tasks.models_cli", "list, measure and check architectures; list baselines"),
    "symmetry": ("scisci.tasks.symmetry_cli", "measure the symmetry errors of a trained model"),
    "sweep": ("scisci.sweep.cli", "plan and run a study: architecture x size x data x seed"),
    "tune": ("scisci.sweep.tune_cli", "choose every learning rate of a study with one budget for all"),
    "scale": ("scisci.scaling.cli", "fit and compare scaling laws"),
    "report": ("scisci.report.cli", "turn a results table into a page, or into figures"),
    "leaderboard": ("scisci.leaderboard.cli", "submit models, recompute their scores, rank them and look"),
}
LIGHTNING = ("fit", "validate", "test", "predict")


def usage() -> str:
    """The text of `scisci --help`."""
    rows = "\n".join(f"  {name:12s}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: scisci COMMAND ...\n\n"
        "How scientific models scale, in distribution and out of it.\n\n"
        f"commands:\n{rows}\n\n"
        "'scisci COMMAND --help' says more; 'scisci --version' prints the version."
    )


def run(argv: list[str]) -> None:
    """Dispatch to a sub-command; what a user can put right is raised as `UserError`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return
    command, *rest = argv
    if command in ("--version", "-V"):
        from scisci import __version__

        print(f"scisci {__version__}")
        return
    if command not in COMMANDS:
        raise unknown_name("command", command, COMMANDS)
    module = import_module(COMMANDS[command][0])
    module.main(argv if command in LIGHTNING else rest)


def main() -> None:
    """Entry point: a `UserError`, or a full disk, is one sentence on stderr and exit code 2."""
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"scisci: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print(f"scisci: interrupted{f'; {interruption}' if str(interruption) else ''}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print("scisci: error: the disk is full; free some space and give the command again", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
