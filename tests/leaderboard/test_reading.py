from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scisci.contracts.errors import UserError
from scisci.leaderboard.findings import Finding, Findings
from scisci.leaderboard.reading import json_schema, load, open_listed, read_submission
from scisci.leaderboard.submission import NAME, SLUG, Run, slug_fault

from .tiny import edit


def test_the_schema_is_json_and_refuses_unknown_keys_everywhere() -> None:
    schema = json.loads(json.dumps(json_schema()))
    parts = [schema, *schema["$defs"].values()]
    assert {part["title"] for part in parts} >= {"Submission", "Run", "Hardware", "TrainingData"}
    assert all(part["additionalProperties"] is False for part in parts)
    assert {"hardware", "training_data", "tuning", "licence"} <= set(schema["required"])


def test_a_failed_run_says_why_and_has_no_predictions(submission: Path) -> None:
    def fail(content: dict, **values: object) -> None:
        content["runs"][0].update(values)

    edit(submission, lambda content: fail(content, status="diverged"))
    with pytest.raises(UserError, match="run 'small-0' is diverged but lists splits"):
        read_submission(submission)
    edit(submission, lambda content: fail(content, splits={}))
    with pytest.raises(UserError, match="run 'small-0' is diverged without a reason; give one"):
        read_submission(submission)
    edit(submission, lambda content: fail(content, reason="the loss became nan"))
    assert read_submission(submission).runs[0].status == "diverged"


def test_runs_that_are_well_formed_are_read_beside_others(submission: Path) -> None:
    edit(submission, lambda content: content["runs"][0].update(seed=-1))
    loaded = load(submission)
    assert loaded.submission is None
    assert [run.run for run in loaded.runs] == ["large-0"]
    assert loaded.names == {"small-0", "large-0"}
    assert [str(fault) for fault in loaded.faults] == [
        "submission.yaml: runs[0] (small-0).seed: input should be greater than or equal to 0; correct it"
    ]


def test_of_very_many_errors_the_first_are_said(submission: Path) -> None:
    edit(submission, lambda content: content["runs"][0].update({f"key {k}": 1 for k in range(100)}))
    faults = load(submission).faults
    assert len(faults) == 51
    assert faults[-1].what == "50 more errors; correct these first"


@given(st.text(max_size=70))
def test_a_slug_is_a_slug_or_the_reason_says_what_is_not(slug: str) -> None:
    import re

    fault = slug_fault(slug)
    assert (fault is None) == (bool(re.fullmatch(SLUG, slug)) and len(slug) <= 64 and slug not in ("con", "nul"))
    assert fault is None or fault.isascii()


@given(st.text(alphabet="ab.-_/\\ A0\n\u0430", min_size=1, max_size=8))
def test_names_of_runs_cannot_leave_their_folder(name: str) -> None:
    import re

    about = {"dataset": "d", "fingerprint": "0" * 64, "size": "s", "params": 1, "data": 1, "samples_seen": 1}
    about |= {"seed": 0, "seconds": 1, "device": "a CPU", "splits": {"test": 1}}
    try:
        run = Run.model_validate({"run": name, **about})
    except ValidationError:
        assert re.fullmatch(NAME[1:-1], name) is None or name.endswith(".")
    else:
        assert (Path("/submission") / run.run).resolve().parent == Path("/submission")


@given(st.binary(max_size=200) | st.text(alphabet="{}[]:-&*!#|>'\"\n a0<,?", max_size=80).map(str.encode))
def test_any_description_is_read_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "a"
        folder.mkdir()
        (folder / "submission.yaml").write_bytes(content)
        with pytest.raises(UserError) as refused:
            read_submission(folder)
    assert str(refused.value).isprintable()


def test_the_description_means_what_a_safe_loader_says(submission: Path) -> None:
    content = yaml.safe_load((submission / "submission.yaml").read_text())
    read = read_submission(submission)
    assert [run.run for run in read.runs] == [run["run"] for run in content["runs"]]
    assert read.date == content["date"] or str(read.date) == content["date"]
    assert read.hardware.device_hours == content["hardware"]["device_hours"]


def test_data_sets_are_opened_by_name_alone(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_listed("tiny-molecules").domain == "atoms"
    monkeypatch.chdir(library)
    for name in ("tiny-molecules/data.h5", str(library / "tiny-molecules" / "data.h5"), "no-such"):
        with pytest.raises(UserError, match="unknown data set"):
            open_listed(name)


def test_findings_are_counted_in_words() -> None:
    found = Findings((Finding("a", "is b; do c"),), (Finding("d", "e"), Finding("f", "g")))
    assert [*found.lines()] == [
        "refused  a: is b; do c",
        "flagged  d: e",
        "flagged  f: g",
        "1 problem; 2 remarks for a person to look at",
    ]
    with pytest.raises(UserError, match=r"^a: is b; do c; 'scisci leaderboard check' says everything$"):
        found.require()
