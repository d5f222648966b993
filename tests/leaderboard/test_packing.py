"""From finished sweeps and from predictions files to submissions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.leaderboard.packing import _plain, pack
from scisci.leaderboard.reading import load, read_submission
from scisci.leaderboard.scaffold import add_run, new
from scisci.leaderboard.scoring import score
from scisci.leaderboard.submission import Submission, Text

from .sweeps import study, swept


@pytest.fixture(scope="module")
def packed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(finished, out)
    return out


def test_each_architecture_and_treatment_becomes_a_submission(packed: Path, finished: Path) -> None:
    assert {path.name for path in packed.iterdir()} == {
        "small-painn",
        "small-mpnn-augmentation",
        "small-schnet",
    }
    found = {path.name: read_submission(path) for path in packed.iterdir()}
    assert {slug: one.family for slug, one in found.items()} == {
        "small-painn": "equivariant",
        "small-mpnn-augmentation": "learned symmetry",
        "small-schnet": "invariant",
    }
    assert found["small-painn"].symmetry["rotation"] == "exact"
    assert found["small-mpnn-augmentation"].symmetry == {
        "rotation": "learned",
        "reflection": "none",
        "translation": "exact",
        "permutation": "exact",
    }
    assert [run.treatment for run in found["small-mpnn-augmentation"].runs] == ["augmentation"] * 4
    assert {author.name for one in found.values() for author in one.authors} == {"anonymous"}
    assert {one.tuning.trials for one in found.values()} == {None}


def test_runs_are_as_the_sweep_recorded_them(packed: Path, finished: Path) -> None:
    table = read_results(finished / "results.parquet").to_pandas()
    for folder in packed.iterdir():
        submission = read_submission(folder)
        for run in submission.runs:
            rows = table[
                (table.architecture == folder.name.split("-")[1])
                & (table["size"] == run.size)
                & (table.data == run.data)
                & (table.seed == run.seed)
            ]
            first = rows.iloc[0]
            assert (run.status, run.params, run.samples_seen) == (first.status, first.params, first.samples_seen)
            assert run.seconds == first.seconds
            assert run.splits == ({} if run.status != "ok" else dict.fromkeys(["val", "test", "ood_600K"], 11))
            for split, values in run.reported.items():
                of_split = rows[rows.split == split].set_index("metric").value
                assert values == {name: of_split[name] for name in values}
                assert {name.startswith("symmetry") for name in values} == (
                    {True, False} if split == "test" else {False}
                )
        hours = table[table.architecture == folder.name.split("-")[1]].drop_duplicates("run").seconds.sum() / 3600
        assert submission.hardware.device_hours == pytest.approx(hours, abs=1e-6)


def test_runs_that_failed_are_listed_with_their_reasons_and_leave_nothing(packed: Path) -> None:
    runs = {run.run: run for run in read_submission(packed / "small-schnet").runs}
    failed = [run for run in runs.values() if run.size == "10k"]
    assert len(failed) == 4
    for run in failed:
        assert run.status == "diverged"
        assert "became" in str(run.reason)
        assert not (packed / "small-schnet" / "predictions" / run.run).exists()


def test_a_submission_holds_nothing_but_its_description_and_predictions(packed: Path) -> None:
    for folder in packed.iterdir():
        runs = read_submission(folder).runs
        wanted = {f"predictions/{run.run}/{split}.h5" for run in runs for split in run.splits} | {"submission.yaml"}
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == wanted


def test_runs_without_predictions_are_predicted_from_their_models(packed: Path, finished: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(finished, sweep)
    for folder in sweep.glob("runs/*/predictions"):
        shutil.rmtree(folder)
    for folder in pack(sweep, tmp_path / "out"):
        kept, made = (score(root / folder.name).to_pandas() for root in (packed, tmp_path / "out"))
        assert kept.drop(columns=["value", "se", "se_groups"]).equals(made.drop(columns=["value", "se", "se_groups"]))
        assert made.value.to_numpy() == pytest.approx(kept.value.to_numpy(), rel=1e-4, nan_ok=True)


ABOUT: dict[str, Any] = {
    "authors": [{"name": "A. Person", "affiliation": "University"}],
    "licence": "MIT",
    "tuning": {"trials": 12, "selected_on": "val, force_mae"},
    "models": {"painn": {"name": "Our PaiNN", "links": {"code": "https://example.org/code"}}},
}


def test_what_the_sweep_cannot_know_comes_from_a_file(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(ABOUT))
    found = {path.name: read_submission(path) for path in pack(finished, tmp_path / "out", tmp_path / "about.yaml")}
    assert {one.licence for one in found.values()} == {"MIT"}
    assert {one.authors[0].name for one in found.values()} == {"A. Person"}
    assert {one.tuning.trials for one in found.values()} == {12}
    assert found["small-painn"].name == "Our PaiNN"
    assert str(found["small-painn"].links.code) == "https://example.org/code"
    assert found["small-schnet"].name == "schnet"
    assert found["small-schnet"].links.code is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"licence": 3}, "licence: input should be a valid string"),
        ({"license": "MIT"}, "unknown key in .*did you mean 'licence'"),
        ({"models": {"pain": {}}}, "unknown model in .*did you mean 'painn'"),
        ({"models": {"painn": {"licens": "MIT"}}}, "unknown key in .*did you mean 'licence'"),
        ({"tuning": {"trials": 3}}, "tuning.selected_on: field required"),
        ({"family": "magic"}, "family: input should be 'equivariant'"),
        ([], "input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_and_nothing_is_written(
    finished: Path, tmp_path: Path, about: Any, message: str
) -> None:
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(about or ["x"]))
    with pytest.raises(UserError, match=message):
        pack(finished, tmp_path / "out", tmp_path / "about.yaml")
    assert not list(tmp_path.glob("out/*"))


def test_submissions_that_exist_are_left_alone(finished: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "small-schnet").mkdir()
    with pytest.raises(UserError, match="small-schnet exists already"):
        pack(finished, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["small-schnet"]


def test_a_sweep_that_is_not_finished_is_refused(finished: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(finished, sweep)
    for run in list((sweep / "runs").iterdir())[:2]:
        shutil.rmtree(run)
    with pytest.raises(UserError, match=r"2 of 20 runs of .* are not done"):
        pack(sweep, tmp_path / "out")
    with pytest.raises(UserError, match="no sweep in"):
        pack(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_packing_fails(finished: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(finished, sweep)
    (broken,) = [
        path.parent
        for path in sweep.glob("runs/*/spec.json")
        if (spec := json.loads(path.read_text()))["architecture"] == "mpnn" and (spec["data"], spec["seed"]) == (32, 1)
    ]
    shutil.rmtree(broken / "predictions")
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="missing or damaged"):
        pack(sweep, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_data_without_a_name_are_refused(small_store: Path, tmp_path: Path) -> None:
    content = study(str(small_store), {"schnet": {"sizes": ["3k"], "learning_rate": 0.01}}, data=[16])
    with pytest.raises(UserError, match="which has no name"):
        pack(swept(content, tmp_path / "sweep"), tmp_path / "out")


def test_baselines_of_series_without_parameters_can_be_submitted(library: Path, tmp_path: Path) -> None:
    entries = {"seasonal_naive": {"sizes": ["0"]}, "dlinear": {"sizes": ["linear"], "learning_rate": 0.01}}
    content = study("tiny-series", entries, data=[16], task={"context": 48, "horizon": 12})
    sweep = swept(content, tmp_path / "sweep")
    linear, naive = (read_submission(path) for path in sorted(pack(sweep, tmp_path / "out")))
    assert (naive.family, naive.runs[0].params, naive.tuning.trials) == ("baseline", 0, 0)
    assert naive.symmetry == {}
    assert (linear.family, linear.symmetry["scale"]) == ("unconstrained", "exact")


def keys(content: Any) -> set[str]:
    """The names of all keys, those within others after a dot."""
    if isinstance(content, list):
        return set().union(*map(keys, content)) if content else set()
    if not isinstance(content, dict):
        return set()
    return set(content) | {f"{name}.{key}" for name, value in content.items() for key in keys(value)}


def test_the_scaffold_has_every_key_and_a_check_says_what_to_fill_in(tmp_path: Path) -> None:
    path = new(tmp_path / "my-model")
    schema = Submission.model_json_schema()
    wanted = set(schema["properties"])
    for name, part in {"authors": "Author", "links": "Links", "training_data": "TrainingData"}.items():
        wanted |= {f"{name}.{key}" for key in schema["$defs"][part]["properties"]}
    for name in ("tuning", "hardware"):
        wanted |= {f"{name}.{key}" for key in schema["$defs"][name.capitalize()]["properties"]}
    assert keys(yaml.safe_load(path.read_text())) == wanted
    faults = {str(fault).split(": ")[1] for fault in load(tmp_path / "my-model").faults}
    assert {"name", "family", "summary", "training_data.contamination", "hardware.device_hours", "runs"} <= faults
    with pytest.raises(UserError, match="exists already"):
        new(tmp_path / "my-model")
    with pytest.raises(UserError, match="the slug"):
        new(tmp_path / "My_Model")


RUN = {"size": "big", "params": 7, "data": 16, "samples_seen": 32, "seconds": 1.5, "device": "cpu"}


def test_runs_are_added_from_predictions_and_comments_stay(packed: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "my-model", packed / "small-painn"
    path = new(folder)
    comments = [line for line in path.read_text().splitlines() if "#" in line]
    files = sorted((source / "predictions" / "3k-16-0").iterdir())
    run = add_run(folder, files, **RUN, seed=None)
    assert (run.run, run.dataset, run.splits) == (
        "big-16-0",
        "tiny-molecules",
        dict.fromkeys(["ood_600K", "test", "val"], 11),
    )
    add_run(folder, files[1:2], **RUN, seed=3, dataset="another-name")
    text = path.read_text()
    assert [line for line in text.splitlines() if "#" in line] == comments
    content = yaml.safe_load(text) | {
        "name": "mine",
        "family": "equivariant",
        "summary": "a model",
        "licence": "MIT",
        "training_data": {"description": "train", "contamination": "none known", "statement": "none"},
        "tuning": {"trials": None, "selected_on": "val"},
        "hardware": {"description": "cpu", "device_hours": 0.1},
        "authors": [{"name": "anonymous"}],
    }
    del content["runs"][1]
    shutil.rmtree(folder / "predictions" / "big-16-3")
    path.write_text(yaml.safe_dump(content))
    mine, theirs = (score(one).to_pandas() for one in (folder, source))
    theirs = theirs[theirs.run == "small-painn/3k-16-0"]
    assert mine.set_index(["split", "metric"]).value.to_dict() == theirs.set_index(["split", "metric"]).value.to_dict()


def other_split(source: Path, target: Path) -> Path:
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        file.attrs.update(fingerprint="0" * 64, split="other")
    return target


def test_what_cannot_be_added_is_said_and_nothing_is_written(packed: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "my-model", packed / "small-painn" / "predictions" / "3k-16-0"
    new(folder)
    before = (folder / "submission.yaml").read_text()
    foreign = other_split(source / "test.h5", tmp_path / "foreign.h5")
    for files, about, message in (
        ([source / "test.h5", source / "test.h5"], RUN, "are both of 'test'"),
        ([source / "test.h5", foreign], RUN, "not of one data set"),
        ([foreign], RUN, "no card has the fingerprint"),
        ([folder / "submission.yaml"], RUN, "not a readable predictions file"),
        ([source / "test.h5"], RUN | {"data": -1}, "data: input should be greater than or equal to 0; correct it"),
        ([source / "test.h5"], RUN | {"parms": 3}, "unknown key in the run 'parms'; did you mean 'params'"),
        ([], RUN, "not of one data set"),
    ):
        with pytest.raises(UserError, match=message):
            add_run(folder, files, **about)
    assert (folder / "submission.yaml").read_text() == before
    assert not (folder / "predictions").exists()
    add_run(folder, [source / "test.h5"], **RUN)
    with pytest.raises(UserError, match="has a run 'big-16-0' already"):
        add_run(folder, [source / "test.h5"], **RUN)
    with pytest.raises(UserError, match="make one with 'scisci leaderboard new'"):
        add_run(tmp_path / "nowhere", [source / "test.h5"], **RUN)


@given(st.text())
def test_whatever_a_run_failed_with_can_be_written_down(reason: str) -> None:
    told = _plain(f"x{reason}")
    assert TypeAdapter(Text).validate_python(told) == told
    assert "\n" not in told


def test_a_reason_keeps_its_words() -> None:
    assert _plain("CUDA\tout of\n memory\x1b[0m ") == "CUDA out of memory [0m"
