from __future__ import annotations

from pathlib import Path

from scisci.leaderboard.checking import check


def test_nothing_is_wrong_with_a_valid_submission(submission: Path) -> None:
    found = check(submission)
    assert found.refused == ()
    assert found.flagged == ()
    assert [*found.lines()] == ["nothing is wrong; 0 remarks for a person to look at"]
    found.require()
