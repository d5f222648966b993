"""`scisci models`: a newcomer's view of the architectures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.card import measure_sizes, measure_symmetry
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.models_cli import main

OUTSIDE = "tests.conformance.test_checks"


def test_list_names_every_architecture_and_baseline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    main(["list"])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    names = [row[0] for row in rows if row]
    assert set(registry.architectures()) <= set(names)
    assert set(baselines.names()) <= set(names)
    assert [row[:5] for row in rows if row[:1] == ["linear_theory"]] == [
        ["linear_theory", "cloud", "velocities", "exact", "exact"]
    ]
    assert [row[1:3] for row in rows if row[:1] == ["constant"]] == [
        ["cloud", "velocities"],
        ["cloud", "parameters"],
        ["tree", "parameters"],
        ["tree", "infilling"],
    ]


def test_info_shows_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", "schnet"])
    printed = capsys.readouterr().out
    assert "1M" in printed
    assert "Schütt" in printed
    assert "rotation" in printed


def test_flops_of_a_linear_layer_are_counted_and_grow_with_size() -> None:
    rows = measure_sizes("mpnn")
    assert [row.size for row in rows] == list(registry.get("mpnn").SIZES)
    # A step differentiates the energy by positions, and that by weights: at least three times the energy's work.
    assert all(row.training > 3 * row.forward for row in rows)
    assert all(b.forward > a.forward for a, b in zip(rows[:-1], rows[1:], strict=True))
    # Each weight matrix acts on every atom or edge once: two FLOPs per weight and atom at the least.
    assert all(row.forward > 2 * 0.9 * row.parameters for row in rows)


def test_symmetry_errors_follow_the_claims() -> None:
    errors = measure_symmetry("nequip")
    assert all(single < 1e-5 and exact < 1e-10 for _, single, exact in errors.values())
    assert measure_symmetry("mpnn")["rotation"][2] > 1e-2


def test_check_passes_a_shipped_model_and_fails_a_broken_one_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "schnet", "--set", "channels=8"])
    assert "missed" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["check", f"{OUTSIDE}:NoEnvelope"])
    assert end.value.code == 1
    assert "cutoff" in capsys.readouterr().out


def test_check_finds_a_model_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_models.py").write_text("from scisci.models.schnet import SchNet\n\nclass Mine(SchNet):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    main(["check", "my_models:Mine"])
    assert "rotation error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "neqip"], "did you mean"),
        (["check", "nowhere:Class"], "cannot load"),
        (["check", "json:JSONDecoder"], "no backbone"),
        (["check", "nequip", "--size", "3m"], "unknown size"),
        (["check", "nequip", "--set", "l_max"], "KEY=VALUE"),
        (["check", "nequip", "--set", "lmax=1"], "l_max"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(arguments)
