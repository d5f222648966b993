"""What drivers say of themselves: at work, done, out of time, interrupted, stopped, killed; also on a full disk."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time

import pytest

from scisci.cli import main as command_line
from scisci.contracts.errors import UserError
from scisci.sweep.drivers import FOLDER, Drivers
from scisci.sweep.records import Records

from .grid import carry_out, faulty, plan, results, wait_for


def test_every_end_of_a_driver_is_told(tmp_path, journal, start_driver):
    gate = tmp_path / "gate"
    gate.touch()
    grid = plan(architectures={"gated": faulty(gate=str(gate))}, data=[16], seeds=list(range(6)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    before, drivers = time.time(), Drivers(folder)
    assert drivers.look() == []
    shards = ["1/1", None, None, None]
    started = [start_driver(folder, "inline", shard=[1, 1]), *(start_driver(folder, "inline") for _ in range(3))]
    wait_for(lambda: {one.pid for one in Records(folder).held().values()} == {process.pid for process in started})
    by_pid = {driver.start.pid: driver for driver in drivers.look()}
    told = [by_pid[process.pid] for process in started]
    assert all(driver.at_work for driver in told)
    assert [driver.start.shard for driver in told] == shards
    assert {(driver.start.host, driver.start.engine, driver.end) for driver in told} == {
        (socket.gethostname(), "inline", None)
    }
    assert all(before <= driver.start.at <= time.time() for driver in told)

    started[1].send_signal(signal.SIGINT)
    started[2].terminate()
    started[3].kill()
    assert [process.wait(120) for process in started[1:]] == [130, 143, -9]
    gate.unlink()
    assert started[0].wait(120) == 0
    by_pid = {driver.start.pid: driver for driver in drivers.look()}
    ends = [by_pid[process.pid].end for process in started]
    assert [end and (end.kind, end.reason) for end in ends] == [
        ("done", None),
        ("interrupted", None),
        ("interrupted", "told to end (SIGTERM)"),
        None,
    ]
    assert not any(driver.at_work for driver in by_pid.values())
    assert journal("end").keys() == {spec.run for _, spec in grid.specs()}
    assert journal("start").total() <= len(grid) + 3, "more was done twice than the three were at"
    assert drivers.look() == Drivers(folder).look(), "what was kept is what is there"


def test_what_a_budget_or_an_error_ends_says_so(tmp_path):
    carry_out(plan(), tmp_path, budget=1e-9)
    (driver,) = Drivers(tmp_path).look()
    assert (driver.end.kind, driver.end.reason) == ("budget", "8 runs left out")
    with pytest.raises(ModuleNotFoundError):
        carry_out(plan(), tmp_path, execute="nowhere:execute")
    carry_out(plan(), tmp_path)
    assert {(driver.end.kind, driver.end.reason) for driver in Drivers(tmp_path).look()} == {
        ("budget", "8 runs left out"),
        ("error", "ModuleNotFoundError: No module named 'nowhere'"),
        ("done", None),
    }
    carry_out(plan(), tmp_path)
    assert len(Drivers(tmp_path).look()) == 3, "who finds nothing to do is no driver"


def test_a_lost_record_is_no_error(tmp_path):
    carry_out(plan(), tmp_path)
    (path,) = (tmp_path / FOLDER).iterdir()
    drivers, text = Drivers(tmp_path), path.read_bytes()
    os.truncate(path, 0)
    (driver,) = drivers.look()
    assert (driver.start, driver.end, driver.at_work) == (None, None, False)
    path.write_bytes(text)
    (driver,) = drivers.look()
    assert driver.end.kind == "done", "an empty file may be that of a driver about to begin"


def fill(folder) -> None:
    """Leave no room on a file system."""
    with open(folder / "filler", "ab", buffering=0) as file, pytest.raises(OSError, match="No space left") as error:
        while True:
            file.write(bytes(4096))
    assert error.value.errno == errno.ENOSPC


def test_a_full_disk_stops_the_driver_which_still_says_so(
    small_disk, tmp_path, journal, start_driver, monkeypatch, capsys
):
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake))}, data=[16], seeds=list(range(6)))
    folder = small_disk / "sweep"
    grid.write(folder)
    driver = start_driver(folder, "inline")
    wait_for(lambda: any(results(grid, folder).values()))
    fill(small_disk)
    assert driver.wait(120) == 2
    sentence = f"the disk that holds {folder} is full; free some space and run again"
    assert (tmp_path / "driver-0.log").read_text().splitlines()[-1] == sentence
    (told,) = Drivers(folder).look()
    assert (told.end.kind, told.end.reason) == ("error", sentence)
    fill(small_disk)
    there = {run for run, result in results(grid, folder).items() if result}
    with pytest.raises(UserError, match="No space left on device"):
        carry_out(grid, folder)
    assert len(list((folder / FOLDER).iterdir())) == 1, "no half record"
    fill(small_disk)
    monkeypatch.setattr("sys.argv", ["scisci", "sweep", "collect", str(folder)])
    with pytest.raises(SystemExit, match="2"):
        command_line()
    assert capsys.readouterr() == ("", "scisci: error: the disk is full; free some space and give the command again\n")
    assert {path.name for path in folder.iterdir()} == {"plan.json", "runs", "locks", "drivers"}

    (small_disk / "filler").unlink()
    brake.unlink()
    carry_out(grid, folder)
    assert {result.status for result in results(grid, folder).values()} == {"ok"}
    assert {journal("start")[run] for run in there} == {1}
