from __future__ import annotations

import subprocess
import sys

import pytest

from scisci.cli import COMMANDS

HEAVY = ("torch", "lightning", "e3nn", "ray", "pandas", "altair", "ase")


def scisci(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "scisci.cli", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_loads_none_of_them() -> None:
    code = (
        "import sys; from scisci.cli import run; run(['--help']);"
        f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {command} " in shown for command in COMMANDS)
    assert shown.rstrip().endswith("HEAVY []")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    done = scisci(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "unknown command 'swep'; did you mean 'sweep'?"),
        (
            ["data", "info", "xtb-molecule"],
            "unknown data set 'xtb-molecule'; did you mean 'xtb-crystals' or 'xtb-molecules'?",
        ),
        (["data", "generate", "xtb", "--out", "x.h5"], "unknown generated data set 'xtb'; did you mean"),
        (["fit", "--run"], "--run needs a value"),
    ],
)
def test_mistakes_are_one_sentence_without_traceback(arguments: list[str], message: str) -> None:
    done = scisci(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert scisci("--version").stdout.strip() == f"scisci {version('scisci')}"
