"""The way of a submission through the commands: from a finished sweep to pages, and what they say of mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.leaderboard.cli import main
from scisci.leaderboard.submission import Submission

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "submission.schema.json"


def leaderboard(*arguments: object) -> None:
    main([str(one) for one in arguments])


@pytest.fixture(scope="module")
def submissions(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("way") / "submissions"
    leaderboard("pack", finished, "--out", out)
    return out


def test_from_a_finished_sweep_to_pages_with_one_command_each(
    submissions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sorted(submissions.iterdir())
    leaderboard("check", *folders)
    assert capsys.readouterr().out.count("nothing is wrong") == len(folders) == 3
    leaderboard("score", *folders, "--scores", tmp_path / "scores")
    first = {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
    leaderboard("score", *folders, "--scores", tmp_path / "scores")
    assert {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()} == first
    leaderboard("build", "--scores", tmp_path / "scores", "--out", tmp_path / "site", "--reference", "small-painn")
    page = (tmp_path / "site" / "boards" / "tiny-molecules" / "index.html").read_text()
    assert all(folder.name in page for folder in folders)


def test_a_refused_submission_is_listed_whole_and_never_scored(
    submissions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path(shutil.copytree(submissions / "small-painn", tmp_path / "small-painn"))
    (bad / "scores.json").write_text("{}")
    next(bad.glob("predictions/*/test.h5")).unlink()
    with pytest.raises(UserError, match="1 of 1 submissions are refused"):
        leaderboard("check", bad)
    assert capsys.readouterr().out.count("refused  ") == 2
    with pytest.raises(UserError, match="'scisci leaderboard check' says everything"):
        leaderboard("score", bad, "--scores", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_link_to_a_submission_is_not_scored(submissions: Path, tmp_path: Path) -> None:
    (tmp_path / "small-painn").symlink_to(submissions / "small-painn")
    with pytest.raises(UserError, match="links do not count"):
        leaderboard("score", tmp_path / "small-painn", "--scores", tmp_path / "scores")


def test_a_new_submission_says_what_to_fill_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard("new", tmp_path / "my-model")
    with pytest.raises(UserError, match="refused"):
        leaderboard("check", tmp_path / "my-model")
    assert "runs" in capsys.readouterr().out


def test_the_published_schema_is_the_one_that_submissions_are_held_to(capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard("schema")
    shown = capsys.readouterr().out
    assert shown == PUBLISHED.read_text()
    assert json.loads(shown)["properties"].keys() == Submission.model_fields.keys()


def test_sealed_labels_need_public_scores_first(submissions: Path, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    with pytest.raises(UserError, match="no public scores of 'small-painn'"):
        leaderboard("score", submissions / "small-painn", "--labels", "x.h5", "--scores", tmp_path / "scores")
