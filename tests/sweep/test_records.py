"""Records: one claim at a time across processes, and folders that are whole or absent."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.sweep.records import Damaged, Records

from .grid import plan

SPEC = next(plan().specs())[1]
RESULT = RunResult(run=SPEC.run, status="ok", domain="atoms", device="cpu")
CLAIM = """
import sys, time
from scisci.sweep.records import Records
with Records(sys.argv[1]).claim("r") as held:
    print("held" if held else "busy", flush=True)
    sys.stdin.read()
"""
REPLACE = """
import os, sys
from scisci.contracts.run import RunResult, RunSpec
from scisci.sweep.records import Records
spec, renamed, rename = RunSpec.model_validate_json(sys.argv[2]), [], os.replace
def die(source, target):
    rename(source, target)
    renamed.append(source)
    if len(renamed) > {survived}:
        os._exit(9)
os.replace = die
Records(sys.argv[1]).commit(spec, RunResult(run=spec.run, status="ok", domain="atoms", device="cpu"))
"""
COUNT = """
import sys, time
from pathlib import Path
from scisci.sweep.records import Records
records, at = Records(sys.argv[1]), Path(sys.argv[2])
held_times = 0
while held_times < 40:
    with records.claim("r") as held:
        if held:
            before = int(at.read_text())
            time.sleep(0.0005)
            at.write_text(str(before + 1))
            held_times += 1
"""


def claimant(folder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_claim_excludes_other_processes_and_dies_with_its_own(tmp_path):
    records, before = Records(tmp_path), time.time()
    with claimant(tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with records.claim("r") as held:
            assert not held
        (holder,) = records.held().values()
        assert (holder.host, holder.pid) == (socket.gethostname(), process.pid)
        assert before <= holder.since <= time.time()
        process.kill()
        process.wait()
    assert records.held() == {}
    with records.claim("r") as held:
        assert held
        with claimant(tmp_path) as process:
            assert process.communicate("")[0] == "busy\n"
    assert list(records.locks.iterdir()) == []


def test_claims_never_overlap_though_each_removes_its_lock_file(tmp_path):
    """Several processes add to a number that only a claim protects: a lost addition is an overlap."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path), str(counter)]
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda _: subprocess.run(command, check=False).returncode, range(3)))
    assert codes == [0, 0, 0]
    assert counter.read_text() == "120"


def test_a_record_is_absent_until_it_is_whole(tmp_path):
    records = Records(tmp_path)
    assert records.result(SPEC.run) is None
    folder = records.begin(SPEC)
    (folder / "curve.parquet").write_bytes(b"half")
    assert records.result(SPEC.run) is None
    assert list(records.recorded()) == []

    folder = records.begin(SPEC)
    assert list(folder.iterdir()) == [], "what a dead process left is removed"
    (folder / "model.json").write_text("{}")
    records.commit(SPEC, RESULT)
    assert records.result(SPEC.run) == RESULT
    assert records.spec(SPEC.run) == SPEC
    assert Counter(p.name for p in records.path(SPEC.run).iterdir()) == Counter(
        ["spec.json", "result.json", "model.json"]
    )
    assert [p.name for p in records.runs.iterdir()] == [SPEC.run]


def test_a_new_recording_takes_the_place_of_the_old_one(tmp_path):
    records = Records(tmp_path)
    failed = RESULT.model_copy(update={"status": "failed", "reason": "why"})
    (records.begin(SPEC) / "traceback.txt").write_text("…")
    records.commit(SPEC, failed)
    first = records.stamp(SPEC.run)
    records.begin(SPEC)
    records.commit(SPEC, RESULT)
    assert records.stamp(SPEC.run) != first
    assert records.result(SPEC.run) == RESULT
    assert not (records.path(SPEC.run) / "traceback.txt").exists()
    assert [p.name for p in records.runs.iterdir()] == [SPEC.run]


@pytest.mark.parametrize("survived", [0, 1])
def test_a_recording_that_is_killed_as_it_takes_the_place_of_another_is_finished(tmp_path, survived):
    records = Records(tmp_path)
    records.commit(SPEC, RESULT.model_copy(update={"status": "failed", "reason": "why"}))
    code = REPLACE.format(survived=survived)
    assert subprocess.run([sys.executable, "-c", code, tmp_path, SPEC.model_dump_json()]).returncode == 9
    assert (records.look(SPEC.run) is None) == (survived == 0)
    with records.claim(SPEC.run) as held:
        assert held
        assert records.result(SPEC.run) == RESULT
    assert [path.name for path in records.runs.iterdir()] == [SPEC.run]


def test_what_a_killed_recording_left_does_not_bring_back_a_record_that_was_removed(tmp_path):
    records = Records(tmp_path)
    (records.runs / f".{SPEC.run}.replaced").mkdir(parents=True)
    (records.begin(SPEC) / "model.json").write_text("half a run")
    with records.claim(SPEC.run) as held:
        assert held
        assert records.look(SPEC.run) is None
        records.commit(SPEC, RESULT)
    assert [path.name for path in records.runs.iterdir()] == [SPEC.run]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"run": ', "is damaged"),
        ("", "is damaged"),
        ('{"run": 1}', "is of another version of scisci"),
        (None, "cannot"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, content, reason):
    records = Records(tmp_path)
    records.begin(SPEC)
    records.commit(SPEC, RESULT)
    path = records.path(SPEC.run) / "result.json"
    path.unlink()
    if content is None:
        path.mkdir()  # what no reader can read, whoever runs the test
    else:
        path.write_text(content)
    assert isinstance(records.look(SPEC.run), Damaged)
    with pytest.raises(UserError, match=f"{path} {reason}.*add '--retry damaged' to do a planned run again"):
        records.result(SPEC.run)
    (records.path(SPEC.run) / "spec.json").unlink()
    with pytest.raises(UserError, match=r"spec\.json is missing"):
        records.spec(SPEC.run)
