"""The pull-request workflow: what it may do, and its steps carried out on real repositories."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from scisci.leaderboard.cli import _parser as leaderboard_parser
from scisci.leaderboard.packing import pack
from scisci.tasks.evaluate_cli import parser as evaluate_parser

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SUBMISSIONS = Path("leaderboard/submissions")
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("git", "bash", "tar", "openssl")), reason="needs git, bash and openssl"
)


def workflow(name: str) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return content


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def named(words: str) -> dict[str, Any]:
    (step,) = (step for step in steps("leaderboard.yml") if words in step.get("name", ""))
    return step


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_no_workflow_has_rights_secrets_or_text_of_others_in_its_commands(path: Path) -> None:
    content = workflow(path.name)
    assert content["permissions"] == {"contents": "read"}
    assert not any(word in str(content) for word in ("secrets", "github.token", "pull_request_target", "workflow_run"))
    assert content["concurrency"]["cancel-in-progress"] is True
    for job in content["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 120
        assert re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"])
    for step in steps(path.name):
        assert ("run" in step) != ("uses" in step)
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_submissions_are_looked_at_by_code_of_the_base_branch_alone() -> None:
    content = workflow("leaderboard.yml")
    # YAML 1.1 reads the key `on` as true.
    assert content[True] == {"pull_request": {"paths": ["leaderboard/submissions/**"]}}
    (checkout,) = (step for step in steps("leaderboard.yml") if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["with"]["path"] == "trusted"
    assert "repository" not in checkout["with"]
    commands = "\n".join(step.get("run", "") for step in steps("leaderboard.yml"))
    run = re.findall(r"^\s*(\S*(?:scisci|python|pip|make|bash|sh))\s", commands, re.MULTILINE)
    assert set(run) == {"make", ".venv/bin/scisci", "trusted/.venv/bin/scisci"}
    assert named("Install")["working-directory"] == "trusted"
    # What is submitted reaches commands by the environment, in one quoted word.
    assert set(re.findall(r"\S*\$FOLDER\S*", commands)) == {'"$FOLDER"'}
    assert named("Check")["env"]["FOLDER"] == "${{ steps.submitted.outputs.folder }}"
    assert workflow("test.yml")[True]["pull_request"] == {"paths-ignore": ["leaderboard/submissions/**"]}


def git(folder: Path, *command: str) -> str:
    name = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "protocol.file.allow=always"]
    found = subprocess.run(["git", "-C", str(folder), *name, *command], check=True, capture_output=True, text=True)
    return found.stdout.strip()


class Repository:
    """A repository with a base branch, as the runner has it in `trusted`, and pull requests to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.work, self.place = root, root / "work", root / "runner"
        for folder in (self.work, self.place):
            folder.mkdir()
        git(self.work, "init", "--quiet", "--initial-branch", "main")
        self.write("README.md", "code")
        self.write(SUBMISSIONS / "other" / "submission.yaml", "name: other")
        self.write(SUBMISSIONS / "other" / "predictions" / "old" / "test.h5", "old predictions")
        self.base = self.commit("begin")
        git(self.work, "checkout", "--quiet", "-b", "change")

    def write(self, path: Path | str, content: str) -> Path:
        target = self.work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        return target

    def commit(self, words: str) -> str:
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "-m", words)
        return git(self.work, "rev-parse", "HEAD")

    def submit(self, slug: str = "new-model") -> None:
        self.write(SUBMISSIONS / slug / "submission.yaml", "name: $(touch pwned)")
        self.write(SUBMISSIONS / slug / "predictions" / "3k-64-0" / "ood_600K.h5", "predictions")

    def move_on(self) -> None:
        """Another commit on the base branch, after the pull request began."""
        self.commit("submit")
        git(self.work, "checkout", "--quiet", "main")
        self.write("LICENCE", "more code")
        self.base = self.commit("go on")
        git(self.work, "checkout", "--quiet", "change")

    def look(self, **environment: str) -> tuple[int, str, Path | None]:
        """Carry the step out: its exit code, what it printed, and the folder that it found."""
        head = self.commit("submit")
        git(self.work, "update-ref", "refs/pull/7/head", head)
        git(self.root, "clone", "--quiet", "--branch", "main", str(self.work), str(self.place / "trusted"))
        git(self.place / "trusted", "checkout", "--quiet", self.base)
        outputs = self.root / "outputs"
        step = named("one submission")
        given = {name: str(value) for name, value in step["env"].items()}
        given |= {"NUMBER": "7", "SUBMITTED": head, "GITHUB_OUTPUT": str(outputs)}
        found = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.place,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "en_US.UTF-8"} | given | environment,
            capture_output=True,
            text=True,
        )
        folder = re.fullmatch(r"folder=(.*)\n", outputs.read_text()) if outputs.exists() else None
        return found.returncode, found.stdout + found.stderr, None if folder is None else Path(folder[1])


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.mark.parametrize("moved", [False, True])
def test_one_submission_is_taken_out_as_plain_files(repository: Repository, moved: bool) -> None:
    repository.submit()
    if moved:
        repository.move_on()
    code, said, folder = repository.look()
    assert code == 0, said
    assert folder == repository.place / "submitted" / SUBMISSIONS / "new-model"
    taken = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    assert {str(path) for path in taken} == {"submission.yaml", "predictions/3k-64-0/ood_600K.h5"}
    for name, path in taken.items():
        assert path.read_text() == (repository.work / SUBMISSIONS / "new-model" / name).read_text()
        assert not stat.S_IMODE(path.stat().st_mode) & 0o111
    assert sorted(path.name for path in repository.place.iterdir()) == ["submitted", "trusted"]
    assert {path.name for path in folder.parent.iterdir()} == {"new-model", "other"}
    assert (folder.parent / "other" / "submission.yaml").read_text() == "name: other"
    # The code stays that of the base branch.
    assert git(repository.place / "trusted", "rev-parse", "HEAD") == repository.base
    assert git(repository.place / "trusted", "status", "--porcelain") == ""


def test_a_submission_can_be_changed(repository: Repository) -> None:
    repository.write(SUBMISSIONS / "other" / "submission.yaml", "name: better")
    shutil.rmtree(repository.work / SUBMISSIONS / "other" / "predictions")
    code, said, folder = repository.look()
    assert code == 0, said
    assert folder is not None
    assert [path.name for path in folder.iterdir()] == ["submission.yaml"]
    assert (folder / "submission.yaml").read_text() == "name: better"


def with_link(repository: Repository) -> None:
    (repository.work / SUBMISSIONS / "new-model" / "predictions" / "3k-64-0" / "val.h5").symlink_to("/etc/passwd")


def with_program(repository: Repository) -> None:
    (repository.work / SUBMISSIONS / "new-model" / "submission.yaml").chmod(0o755)


def with_module(repository: Repository) -> None:
    inner = repository.root / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    git(inner, "commit", "--quiet", "--allow-empty", "-m", "x")
    name = str(SUBMISSIONS / "new-model" / "predictions" / "run" / "val.h5")
    git(repository.work, "submodule", "--quiet", "add", str(inner), name)
    git(repository.work, "rm", "--quiet", "--cached", ".gitmodules")
    (repository.work / ".gitmodules").unlink()


def removing(repository: Repository) -> None:
    shutil.rmtree(repository.work / SUBMISSIONS / "new-model")
    shutil.rmtree(repository.work / SUBMISSIONS / "other")


def renaming(repository: Repository) -> None:
    shutil.rmtree(repository.work / SUBMISSIONS / "new-model")
    git(repository.work, "mv", str(SUBMISSIONS / "other"), str(SUBMISSIONS / "mine"))


def writing(path: str) -> Callable[[Repository], None]:
    def write(repository: Repository) -> None:
        repository.write(path, "name: x")

    return write


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (writing("README.md"), "README.md is no file of a submission"),
        (writing("scisci/leaderboard/checking.py"), "is no file of a submission"),
        (writing(".github/workflows/leaderboard.yml"), "is no file of a submission"),
        (writing(".gitattributes"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/.gitattributes"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/setup.py"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/run/val.pkl"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/run/deep/val.h5"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/run/..h5"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/run/$(id).h5"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/run/a\n::set-env name=A::b.h5"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/new-model/predictions/--help/val.h5"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/néw/submission.yaml"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/New/submission.yaml"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/submission.yaml"), "is no file of a submission"),
        (writing(f"{SUBMISSIONS}/second/submission.yaml"), "more than one submission"),
        (with_link, "is not a plain file of a submission"),
        (with_program, "is not a plain file of a submission"),
        (with_module, "is not a plain file of a submission"),
        (removing, "more than one submission|is removed"),
        (renaming, "more than one submission"),
    ],
)
def test_whatever_else_is_touched_is_refused(
    repository: Repository, change: Callable[[Repository], None], words: str
) -> None:
    repository.submit()
    change(repository)
    code, said, folder = repository.look()
    assert code == 1
    assert folder is None
    assert re.search(f"^refused: .*({words})", said, re.MULTILINE), said
    assert not any(line.startswith("::") and not line.startswith("::stop-commands::") for line in said.splitlines())
    assert sorted(path.name for path in repository.place.iterdir()) == ["trusted"]


def test_what_is_too_large_is_refused(repository: Repository) -> None:
    repository.submit()
    code, said, _ = repository.look(MOST_BYTES="20")
    assert code == 1
    assert "refused: leaderboard/submissions/new-model has 31 bytes; submit fewer samples or runs" in said


def test_files_that_were_there_before_count_too(repository: Repository) -> None:
    """A link that came in otherwise is not followed for a change beside it."""
    git(repository.work, "checkout", "--quiet", "main")
    target = repository.work / SUBMISSIONS / "other" / "predictions" / "run" / "val.h5"
    target.parent.mkdir(parents=True)
    target.symlink_to("/etc/passwd")
    repository.base = repository.commit("link")
    git(repository.work, "checkout", "--quiet", "-B", "change")
    repository.write(SUBMISSIONS / "other" / "submission.yaml", "name: better")
    code, said, _ = repository.look()
    assert code == 1
    assert "is not a plain file of a submission" in said


@pytest.fixture(scope="module")
def packed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(folder for folder in pack(finished, tmp_path_factory.mktemp("packed")) if "painn" in folder.name)


@pytest.mark.parametrize("broken", [False, True])
def test_the_last_step_checks_and_scores(packed: Path, tmp_path: Path, broken: bool) -> None:
    program = tmp_path / "trusted" / ".venv" / "bin" / "scisci"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).with_name("scisci"))
    folder = tmp_path / "submitted" / packed.name
    shutil.copytree(packed, folder)
    if broken:
        with h5py.File(next(folder.glob("predictions/*/test.h5")), "r+") as file:
            file["energy"][3] = float("nan")
    found = subprocess.run(
        ["bash", "-e", "-c", named("Check")["run"]],
        cwd=tmp_path,
        env=os.environ | {"FOLDER": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (found.returncode != 0) is broken, found.stderr
    assert (tmp_path / "scores" / f"{packed.name}.json").exists() is not broken


def told() -> list[list[str]]:
    """The scisci commands of the leaderboard's README, in words."""
    text = (ROOT / "leaderboard" / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^    scisci (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_readme_names_commands_that_there_are() -> None:
    parsers = {"leaderboard": leaderboard_parser(), "evaluate": evaluate_parser()}
    found = {name: [words for name_, *words in told() if name_ == name] for name in parsers}
    for name, parser in parsers.items():
        for words in found[name]:
            parser.parse_args(words)
    assert {words[0] for words in found["leaderboard"]} == {
        *("new", "pack", "check", "score", "build", "seal", "key", "sign", "verify", "reproduce"),
    }
