"""The Ray engine, with real worker processes: same results as in this process, and every kind of death."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from scisci.contracts.results import read_results
from scisci.sweep.collect import collect
from scisci.sweep.records import Records
from scisci.sweep.standing import standing

from .grid import alive, carry_out, faulty, plan, results, running, timeless, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_find_tests")]
SOUND = {"linear": {"sizes": ["2", "4"], "learning_rate": 0.1}}


def test_results_equal_the_inline_engines_and_the_lost_are_tried_again(tmp_path, journal, capfd):
    grid = plan(
        architectures=SOUND
        | {
            "wild": {
                "architecture": "linear",
                "sizes": ["4"],
                "learning_rate": 1e30,
                "treatment": "augmentation",
            },
            "killed": faulty(fault="signal", signal="SIGKILL"),
            "crashed": faulty(fault="signal", signal="SIGSEGV"),
            "told": faulty(fault="signal", signal="SIGTERM"),
            "raising": faulty(fault="raise"),
        },
        data=[16],
        seeds=[0],
    )
    log = carry_out(grid, tmp_path / "ray", engine="ray", workers=2)
    assert len(log.outcomes) == len(grid) == 7
    by_label = {o.job.cell.label: o.result for o in log.outcomes}
    assert by_label["killed"].status == by_label["crashed"].status == "failed"
    assert by_label["killed"].reason.endswith("as after SIGKILL or the loss of its machine, 2 times in a row")
    assert "Fatal Python error: Segmentation fault" in by_label["crashed"].reason
    assert "SIGTERM" in by_label["told"].reason
    assert by_label["raising"].reason == "ValueError: the matrix is singular"
    assert by_label["wild"].status == "diverged"
    starts = {o.job.cell.label: journal("start")[o.job.spec.run] for o in log.outcomes}
    assert starts == {"linear": 1, "wild": 1, "killed": 2, "told": 2, "crashed": 1, "raising": 1}

    deadly = {"killed", "crashed", "told"}
    harmless = {k: v for k, v in grid.study.model_dump()["architectures"].items() if k not in deadly}
    inline = plan(architectures=harmless, data=[16], seeds=[0])
    carry_out(inline, tmp_path / "inline")
    here, there = results(inline, tmp_path / "inline"), results(inline, tmp_path / "ray")
    assert {run: timeless(result) for run, result in here.items() if result.status != "failed"} == {
        run: timeless(result) for run, result in there.items() if result.status != "failed"
    }
    for run, result in there.items():
        if result.status == "ok":
            weights = [tmp_path / engine / "runs" / run / "model.safetensors" for engine in ("ray", "inline")]
            assert weights[0].read_bytes() == weights[1].read_bytes()
    assert capfd.readouterr() == ("", "")


def test_killed_drivers_and_workers_lose_nothing_and_run_nothing_twice(tmp_path, journal, start_driver):
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake)) | {"sizes": ["2", "3", "4"]}}, seeds=list(range(10)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    records = Records(folder)
    recorded = lambda: set(records.recorded())
    at_work = lambda: running(tmp_path / "journal")

    def kill_at_work(pid):
        os.kill(pid, signal.SIGSTOP)  # its training may end while one looks
        caught = pid in at_work()
        os.kill(pid, signal.SIGKILL if caught else signal.SIGCONT)
        return caught

    interrupted, killed = (start_driver(folder, "ray") for _ in range(2))
    wait_for(lambda: len(recorded()) >= 4)
    wait_for(lambda: any(map(kill_at_work, at_work())))

    os.killpg(interrupted.pid, signal.SIGINT)
    assert interrupted.wait(20) != 0
    then = recorded()
    starts = {run: journal("start")[run] for run in then}
    wait_for(lambda: len(recorded()) >= len(then) + 3)

    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not any(map(alive, at_work())))
    assert {records.result(run).status for run in recorded()} == {"ok"}, "an interruption is nobody's result"
    assert then < recorded() < {spec.run for _, spec in grid.specs()}
    starts |= {run: journal("start")[run] for run in recorded()}

    brake.unlink()
    carry_out(grid, folder)
    assert {run: journal("start")[run] for run in starts} == starts, "what is recorded was done again"
    assert journal("start").total() <= len(grid) + 5, "what the five dead workers were at was started twice"
    ends = {driver.start.pid: driver.end and driver.end.kind for driver in standing(folder).drivers}
    assert ends == {interrupted.pid: "interrupted", killed.pid: None, os.getpid(): "done"}
    carry_out(grid, tmp_path / "undisturbed")
    assert {run: timeless(result) for run, result in results(grid, folder).items()} == {
        run: timeless(result) for run, result in results(grid, tmp_path / "undisturbed").items()
    }
    collect(folder)
    collect(tmp_path / "undisturbed")
    tables = [read_results(at / "results.parquet").drop_columns("seconds") for at in (folder, tmp_path / "undisturbed")]
    assert tables[0].equals(tables[1])
    assert (tmp_path / "driver-1.log").read_text().count("\n") == (tmp_path / "driver-1.log").read_text().count(
        "] slow"
    )


def test_drivers_of_both_engines_share_a_sweep(tmp_path, journal, start_driver):
    """An inline driver and one of Ray begin together, and another inline one when workers of Ray are at it."""
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake))}, data=[16], seeds=list(range(150)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    first, ray = start_driver(folder, "inline"), start_driver(folder, "ray")
    others = lambda: {one.pid for one in Records(folder).held().values()} - {first.pid}
    wait_for(others)
    late = start_driver(folder, "inline")
    wait_for(lambda: late.pid in others())
    now = standing(folder)
    assert Counter((driver.start.engine, driver.at_work) for driver in now.drivers) == {
        ("inline", True): 2,
        ("ray", True): 1,
    }
    first.kill()
    brake.unlink()
    assert [ray.wait(60), late.wait(60)] == [0, 0]
    assert {result.status for result in results(grid, folder).values()} == {"ok"}
    assert journal("start").total() <= len(grid) + 1, "more was done twice than the killed driver was at"
    assert journal("start").keys() == {spec.run for _, spec in grid.specs()}
    ends = {driver.start.pid: driver.end and driver.end.kind for driver in standing(folder).drivers}
    assert ends == {first.pid: None, ray.pid: "done", late.pid: "done"}
