"""A machine without memory or room on its disk: what is tried again, what is recorded, and what stops the sweep."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.sweep.attempt import Destination, Job, attempt, record_death
from scisci.sweep.records import KEPT, Records
from scisci.sweep.resources import Needs

from .grid import EXECUTE, IMPORT_ROOT, carry_out, faulty, plan, results

EXHAUSTING = EXECUTE.replace("regression:execute", "exhausting")
LIMITED = """
import resource, sys
import torch
from pathlib import Path
from scisci.sweep.attempt import Destination, Job, attempt
from scisci.sweep.plan import Plan
from scisci.sweep.resources import Needs
folder, execute = sys.argv[1:]
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 1000 * 2**20, -1))
plan = Plan.read(folder)
job = Job(plan.cells[0], plan.spec(plan.cells[0], 0))
print(attempt(Destination(Path(folder), "atoms", execute), job, Needs()).state)
"""


def one(**changes):
    return plan(data=[16], seeds=[0], **changes)


def only(grid, folder):
    (result,) = results(grid, folder).values()
    return result


def test_a_run_without_memory_for_whole_batches_is_done_with_parts(tmp_path, journal):
    grid = one(architectures={"large": faulty(fault="memory of whole batches")})
    carry_out(grid, tmp_path)
    result = only(grid, tmp_path)
    assert (result.status, result.accumulation) == ("ok", 2)
    (note,) = result.notes
    assert note.startswith("out of memory with whole batches: ")
    assert "Unable to allocate" in note
    assert list(journal("start").values()) == [2]
    files = {path.name for path in (tmp_path / "runs" / result.run).iterdir()}
    assert files == {"spec.json", "result.json", "curve.parquet", "model.safetensors", "model.json"}


def test_two_attempts_without_memory_are_recorded_as_such(tmp_path, journal):
    grid = one(architectures={"large": faulty(fault="memory")})
    carry_out(grid, tmp_path)
    result = only(grid, tmp_path)
    assert result.status == "out_of_memory"
    assert "and again with each batch in 2 parts" in result.reason
    assert result.reason.count("Unable to allocate") == 2
    assert list(journal("start").values()) == [2]
    carry_out(grid, tmp_path, retry=["out_of_memory"])
    assert only(grid, tmp_path).reason.count("Unable to allocate") == 2
    assert list(journal("start").values()) == [4]


def test_a_batch_of_one_sample_has_no_parts(tmp_path, journal):
    grid = one(architectures={"large": faulty(fault="memory")}, optimization={"steps": 20, "batch_size": 1})
    carry_out(grid, tmp_path)
    assert "again" not in only(grid, tmp_path).reason
    assert list(journal("start").values()) == [1]


def test_memory_that_is_really_short(tmp_path):
    """The address space of a process is limited to 1000 MiB more than it has; a batch takes 1300."""
    grid = one(architectures={"large": faulty()})
    grid.write(tmp_path)
    Records(tmp_path).prepare()
    command = [sys.executable, "-c", LIMITED, str(tmp_path), f"{EXHAUSTING}:by_torch"]
    environment = os.environ | {"PYTHONPATH": f"{IMPORT_ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr
    result = only(grid, tmp_path)
    assert (result.status, result.accumulation) == ("ok", 2)
    assert "DefaultCPUAllocator" in result.notes[0]


def test_a_driver_killed_before_the_parts_are_done_does_not_begin_with_whole_batches_again(
    tmp_path, journal, start_driver
):
    grid, folder = one(architectures={"large": faulty()}), tmp_path / "sweep"
    grid.write(folder)
    execute = f"{EXHAUSTING}:killed_in_parts"
    assert start_driver(folder, "inline", execute=execute).wait(60) == -signal.SIGKILL
    assert results(grid, folder) == {grid.spec(grid.cells[0], 0).run: None}
    carry_out(grid, folder, execute=execute)
    result = only(grid, folder)
    assert (result.status, result.accumulation) == ("ok", 2)
    assert result.notes == ("out of memory with whole batches: MemoryError: whole batches do not fit",)
    assert list(journal("start").values()) == [1]


def test_a_worker_that_the_machine_ends_for_its_memory_has_one_more_try(tmp_path, journal):
    """What the engine does where Ray says that the memory monitor killed a worker."""
    grid = one(architectures={"large": faulty()})
    records = Records(tmp_path)
    records.prepare()
    job = Job(grid.cells[0], grid.spec(grid.cells[0], 0))
    destination = Destination(tmp_path, "atoms", EXECUTE)

    def killed(reason: str):
        (records.begin(job.spec) / "output.txt").write_text("half a run")
        return record_death(destination, job, "out_of_memory", reason, 1.0, retry=False)

    assert killed("the machine was short").state == "lost"
    assert [path.name for path in records.partial(job.spec.run).iterdir()] == ["shortage.txt"]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "runs", elsewhere / "runs")
    outcome = attempt(destination, job, Needs())
    assert (outcome.state, outcome.result.status, outcome.result.accumulation) == ("done", "ok", 2)
    assert outcome.result.notes == ("out of memory with whole batches: the machine was short",)

    destination, records = Destination(elsewhere, "atoms", EXECUTE), Records(elsewhere)
    outcome = killed("it still was")
    assert (outcome.state, outcome.result.status) == ("done", "out_of_memory")
    assert outcome.result.reason == "the machine was short; and again with each batch in 2 parts: it still was"
    assert not any((records.path(job.spec.run) / name).exists() for name in KEPT)


def test_a_run_that_got_on_before_it_was_lost_is_not_given_up(tmp_path):
    grid = one()
    Records(tmp_path).prepare()
    job = Job(grid.cells[0], grid.spec(grid.cells[0], 0))
    checkpoint = Records(tmp_path).begin(job.spec) / "last.ckpt"
    checkpoint.write_bytes(b"")
    lost = functools.partial(record_death, Destination(tmp_path, "atoms", EXECUTE), job, "failed", "the worker died")
    assert lost(60.0, retry=False).state == "lost"
    os.utime(checkpoint, (0, 0))
    assert lost(60.0, retry=True).state == "lost"
    assert lost(60.0, retry=False).result.reason == "the worker died"
    assert not (Records(tmp_path).path(job.spec.run) / "last.ckpt").exists()


LIBRARIES = ("text", "print", "hdf5", "parquet", "safetensors", "torch", "checkpoint")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_disk_that_is_really_full_stops_the_sweep(small_disk: Path, library: str) -> None:
    grid = one(architectures={"wordy": faulty(library=library)})
    with pytest.raises(UserError, match=r"the disk that holds .* is full; free some space and run again"):
        carry_out(grid, small_disk, execute=f"{EXHAUSTING}:write")
    assert set(results(grid, small_disk).values()) == {None}
    # with room enough, the same command goes on
    carry_out(grid, small_disk)
    assert only(grid, small_disk).status == "ok"


def test_a_process_that_a_full_disk_killed_is_no_failed_run(small_disk: Path, journal, start_driver) -> None:
    """As HDF5 does, at times, where it cannot write what it holds."""
    grid = one(architectures={"wordy": faulty(library="abort")})
    grid.write(small_disk)
    driver = start_driver(small_disk, "inline", execute=f"{EXHAUSTING}:write")
    assert driver.wait(60) == -signal.SIGABRT
    job = Job(grid.cells[0], grid.spec(grid.cells[0], 0))
    destination = Destination(small_disk, "atoms", EXECUTE)
    with pytest.raises(UserError, match="is full; free some space"):
        record_death(destination, job, "failed", "the worker process died", 1.0, retry=False)
    assert set(results(grid, small_disk).values()) == {None}
    assert attempt(destination, job, Needs()).state == "done"


def test_a_disk_without_room_for_the_record_itself(small_disk: Path) -> None:
    grid = one()
    grid.write(small_disk)
    Records(small_disk).prepare()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    job = Job(grid.cells[0], grid.spec(grid.cells[0], 0))
    with pytest.raises(UserError, match="is full"):
        attempt(Destination(small_disk, "atoms", EXECUTE), job, Needs())
    filler.unlink()
    assert attempt(Destination(small_disk, "atoms", EXECUTE), job, Needs()).state == "done"
    assert json.loads((small_disk / "runs" / job.spec.run / "result.json").read_text())["status"] == "ok"
