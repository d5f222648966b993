"""Submissions made to do harm or to cheat: each is refused or flagged in its own words, and touches nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.leaderboard.checking import check
from scisci.leaderboard.reading import read_submission

from .attacks import FLAGGED, REFUSED
from .attacks.descriptions import no_cost, unknown_key
from .attacks.registry import canary, change, first_run


def snapshot(root: Path, but: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that lies in a folder apart from the submissions: times, kinds and content."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
        if but not in (path, *path.parents)
    }


@pytest.fixture
def attacked(submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A valid submission to be attacked; afterwards, nothing outside of it may have changed."""
    shutil.copytree(submission / "predictions" / "small-0", canary(submission).parent)
    (canary(submission).parent / "test.h5").rename(canary(submission))
    monkeypatch.chdir(canary(submission).parent)
    before = snapshot(tmp_path, submission.parent)
    yield submission
    assert snapshot(tmp_path, submission.parent) == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_submission_is_refused_in_its_own_words(name: str, attacked: Path) -> None:
    attack, sentence = REFUSED[name]
    folder = attack(attacked) or attacked
    found = check(folder)
    assert [line for line in map(str, found.refused) if sentence in line], "\n".join(found.lines())
    with pytest.raises(UserError, match="leaderboard check"):
        found.require()


@pytest.mark.parametrize("name", FLAGGED)
def test_a_suspicious_submission_is_flagged_in_its_own_words(name: str, attacked: Path) -> None:
    attack, sentence = FLAGGED[name]
    attack(attacked)
    found = check(attacked)
    assert found.refused == ()
    assert [line for line in map(str, found.flagged) if sentence in line], "\n".join(found.lines())
    assert all(line.isprintable() for line in found.lines())


def test_every_attack_has_words_of_its_own() -> None:
    assert len(REFUSED) + len(FLAGGED) >= 60
    shared = {"is not a regular file", "is it one model?"}
    sentences = [words for _, words in (*REFUSED.values(), *FLAGGED.values()) if not any(s in words for s in shared)]
    assert len(set(sentences)) == len(sentences)


def test_a_file_in_the_working_folder_is_no_data_set(attacked: Path) -> None:
    first_run(attacked, dataset="canary.h5")
    assert any("unknown data set 'canary.h5'" in str(finding) for finding in check(attacked).refused)


def test_all_problems_are_said_at_once(attacked: Path) -> None:
    attacks = ("symlinked_file", "unknown_key", "forged_scores", "run_with_a_name_of_windows")
    for name in attacks:
        REFUSED[name][0](attacked)
    change(attacked, "energy", lambda values: values * np.nan, Path("predictions/large-0/test.h5"))
    change(attacked, "ids", lambda ids: ids[::-1], Path("predictions/large-0/test.h5"))
    lines = "\n".join(check(attacked).lines())
    for name in (*attacks[1:], "shuffled_ids"):
        assert REFUSED[name][1] in lines
    assert "large-0/test.h5: has nan in row 0 of 'energy'" in lines


def test_a_description_is_read_or_refused_in_one_sentence(attacked: Path) -> None:
    assert [run.run for run in read_submission(attacked).runs] == ["small-0", "large-0"]
    unknown_key(attacked)
    no_cost(attacked)
    with pytest.raises(UserError, match=r"hardware.device_hours: is missing; give it \(and 1 more\)"):
        read_submission(attacked)


def test_a_description_that_is_dumped_is_the_same(attacked: Path) -> None:
    again = yaml.safe_dump(read_submission(attacked).model_dump(mode="json"))
    before = read_submission(attacked)
    (attacked / "submission.yaml").write_text(again)
    assert read_submission(attacked) == before
