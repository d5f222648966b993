"""Sweeps in this process and in several: what is skipped, waited for, recorded and predicted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.sweep.collect import collect
from scisci.sweep.drive import Shard, survey
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Work
from scisci.sweep.records import Records
from scisci.sweep.standing import standing

from .grid import EXECUTE, carry_out, faulty, plan, results, timeless, wait_for

HOLD = """
import sys
from scisci.sweep.records import Records
from scisci.sweep.standing import standing
with Records(sys.argv[1]).claim(sys.argv[2]) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_a_sweep_leaves_whole_run_folders_and_is_not_done_twice(tmp_path, journal):
    grid = plan()
    log = carry_out(grid, tmp_path)
    assert {o.job.spec.run for o in log.outcomes} == {spec.run for _, spec in grid.specs()}
    for _, spec in grid.specs():
        files = {p.name for p in (tmp_path / "runs" / spec.run).iterdir()}
        assert files == {"spec.json", "result.json", "curve.parquet", "model.safetensors", "model.json"}
        assert pq.read_table(tmp_path / "runs" / spec.run / "curve.parquet").num_rows == 20
    assert carry_out(grid, tmp_path).outcomes == []
    assert set(journal("start").values()) == {1}


def test_an_extended_study_runs_only_what_is_new(tmp_path, journal):
    carry_out(plan(seeds=[0]), tmp_path)
    log = carry_out(plan(seeds=[0, 1]), tmp_path)
    assert {o.job.spec.seed for o in log.outcomes} == {1}
    assert set(journal("start").values()) == {1}
    shrunk = plan(seeds=[1])
    carry_out(shrunk, tmp_path)
    assert (collect(tmp_path).runs, collect(tmp_path).unplanned) == (4, 4)
    assert collect(tmp_path, everything=True).runs == 8


def test_what_goes_wrong_is_recorded_with_its_reason(tmp_path):
    faults = ("raise", "user error", "memory")
    entries = {fault.replace(" ", "-"): faulty(fault=fault) for fault in faults}
    wild = {"architecture": "linear", "sizes": ["4"], "learning_rate": 1e30}
    grid = plan(architectures=entries | {"wild": wild}, data=[16], seeds=[0])
    log = carry_out(grid, tmp_path)
    got = {o.job.cell.label: o.result for o in log.outcomes}
    assert {label: result.status for label, result in got.items()} == {
        "raise": "failed",
        "user-error": "failed",
        "memory": "out_of_memory",
        "wild": "diverged",
    }
    assert got["raise"].reason == "ValueError: the matrix is singular"
    assert got["user-error"].reason == "the data set is missing; fetch it"
    assert "Unable to allocate" in got["memory"].reason
    assert got["wild"].reason.startswith("the loss was not finite after")
    folder = tmp_path / "runs" / got["raise"].run
    assert "in go_wrong" in (folder / "traceback.txt").read_text()
    assert (folder / "output.txt").read_text() == "about to fail\n"
    troubles = {trouble.reason: trouble for trouble in standing(tmp_path).troubles}
    assert {result.reason for result in got.values()} == set(troubles)
    assert troubles[got["raise"].reason].examples[0][1].run == got["raise"].run


def test_a_result_that_is_not_finite_is_a_failure(tmp_path):
    log = carry_out(plan(data=[16], seeds=[0]), tmp_path, execute=EXECUTE.replace("execute", "nan_metric"))
    reasons = {outcome.result.reason for outcome in log.outcomes}
    assert reasons == {"ValueError: a number in the run's result is not finite"}


def test_retry_replaces_recorded_failures_only(tmp_path, journal):
    mended = tmp_path / "mended"
    grid = plan(
        architectures={
            "linear": {"sizes": ["2"], "learning_rate": 0.1},
            "flaky": faulty(fault="until", path=str(mended)),
        }
    )
    folder = tmp_path / "sweep"
    carry_out(grid, folder)
    assert {o.job.cell.label for o in carry_out(grid, folder, retry=["failed"]).outcomes} == {"flaky"}
    mended.touch()
    assert carry_out(grid, folder, retry=["diverged"]).outcomes == []
    carry_out(grid, folder, retry=["failed"])
    assert {result.status for result in results(grid, folder).values()} == {"ok"}
    assert carry_out(grid, folder, retry=["failed"]).outcomes == []
    assert sorted(journal("start").values()) == [1] * 4 + [3] * 4


def test_damaged_records_stop_nothing_and_are_done_again_only_when_told(tmp_path, journal):
    grid = plan()
    carry_out(grid, tmp_path)
    whole = results(grid, tmp_path)
    first, second, third = list(whole)[:3]
    (tmp_path / "runs" / first / "result.json").write_text('{"run": ')
    (tmp_path / "runs" / second / "result.json").write_text("")
    (tmp_path / "runs" / third / "spec.json").write_text("")
    assert carry_out(grid, tmp_path).outcomes == carry_out(grid, tmp_path, retry=["failed"]).outcomes == []
    collected = collect(tmp_path)
    assert (collected.runs, collected.missing, collected.unplanned) == (6, 0, 0)
    assert {one.path.parent.name for one in collected.damaged} == {first, second}
    assert third in read_results(collected.path)["run"].to_pylist(), "the plan has its spec"
    assert {one.path.parent.name for one in collect(tmp_path, everything=True).damaged} == {first, second, third}
    now = standing(tmp_path)
    assert now.totals == {"ok": 6, "damaged": 2}
    assert {spec.run for trouble in now.troubles for _, spec in trouble.examples} == {first, second}
    assert len(carry_out(grid, tmp_path, retry=["damaged"]).outcomes) == 2
    again = {first: 2, second: 2}
    assert journal("start") == {run: again.get(run, 1) for run in whole}
    assert {run: timeless(result) for run, result in results(grid, tmp_path).items()} == {
        run: timeless(result) for run, result in whole.items()
    }


def test_a_full_disk_stops_the_sweep_and_is_nobodys_result(tmp_path):
    grid = plan(architectures={"big": faulty(fault="disk")})
    with pytest.raises(UserError, match="is full; free some space and run again"):
        carry_out(grid, tmp_path)
    assert set(results(grid, tmp_path).values()) == {None}


def test_two_drivers_share_a_sweep(tmp_path, journal, start_driver):
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake))}, seeds=list(range(6)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    drivers = [start_driver(folder, "inline") for _ in range(2)]
    wait_for(lambda: len(results_there(folder)) >= 3)
    brake.unlink()
    assert [driver.wait(30) for driver in drivers] == [0, 0]
    assert set(journal("start").values()) == {1}
    assert len(journal("end")) == 12
    logs = [(tmp_path / f"driver-{i}.log").read_text() for i in range(2)]
    assert all("[12/12]" in log for log in logs), "both wait for the last run"
    assert "(done by another process)" in logs[0] + logs[1]


def results_there(folder) -> list[str]:
    return list(Records(folder).recorded())


def test_a_run_that_an_orphan_still_holds_is_waited_for(tmp_path, journal):
    grid = plan(data=[16])
    run = grid.spec(grid.cells[0], 0).run
    command = [sys.executable, "-c", HOLD, str(tmp_path), run]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as orphan:
        assert orphan.stdout.readline() == "True\n"
        sweeping = threading.Thread(target=carry_out, args=(grid, tmp_path))
        sweeping.start()
        wait_for(lambda: len(results_there(tmp_path)) == len(grid) - 1)
        sweeping.join(1.5)
        assert sweeping.is_alive()
        assert standing(tmp_path).totals == {"ok": 3, "running": 1}
        assert run not in journal("start")
        orphan.kill()
        orphan.wait()
        sweeping.join(10)
    assert not sweeping.is_alive()
    assert journal("end")[run] == 1


def test_shards_do_their_parts(tmp_path, journal):
    grid = plan()
    parts = [carry_out(grid, tmp_path, shard=Shard(i, 3)).outcomes for i in (1, 2, 3)]
    assert sorted(map(len, parts)) == [2, 3, 3]
    assert set(journal("start").values()) == {1}
    assert standing(tmp_path).totals == {"ok": 8}


def test_the_table_says_what_the_records_say(tmp_path):
    wild = {"architecture": "linear", "sizes": ["4"], "learning_rate": 1e30, "overrides": {"note": 1}}
    grid = plan(architectures={"linear": {"sizes": ["2"], "learning_rate": 0.1}, "wild": wild})
    carry_out(grid, tmp_path)
    collected = collect(tmp_path)
    assert (collected.runs, collected.missing, collected.unplanned) == (8, 0, 0)
    table = read_results(tmp_path / "results.parquet").to_pylist()
    assert collected.rows == len(table)
    for row in table:
        folder = tmp_path / "runs" / row["run"]
        spec, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "result"))
        assert row["architecture"] == ("wild" if spec["overrides"] else "linear")
        assert [row[key] for key in ("size", "data", "seed", "study")] == [
            spec[key] for key in ("size", "data", "seed", "study")
        ]
        assert [row[key] for key in ("status", "reason", "seconds", "params")] == [
            result[key] for key in ("status", "reason", "seconds", "params")
        ]
        if row["status"] == "ok":
            assert row["value"] == result["splits"][row["split"]]["metrics"][row["metric"]]["value"]
        else:
            assert row["split"] is None
    assert len(table) == 8
    assert [row["run"] for row in table] == [spec.run for _, spec in grid.specs()]


def test_an_unfinished_sweep_can_be_collected(tmp_path):
    grid = plan()
    carry_out(grid, tmp_path, shard=Shard(1, 2))
    collected = collect(tmp_path)
    assert (collected.runs, collected.missing) == (4, 4)


@pytest.mark.parametrize(("order", "expected"), [("longest", ["30", "8", "2"]), ("smallest", ["2", "8", "30"])])
def test_order_goes_by_predicted_cost(tmp_path, order, expected):
    grid = plan(architectures={"linear": {"sizes": ["8", "2", "30"], "learning_rate": 0.01}}, seeds=[0])
    state, queue = survey(grid, Records(tmp_path), order)
    assert state.left.total() == len(queue) == 6
    assert [job.cell.size for job in iter(queue.next, None)] == [size for size in expected for _ in range(2)]


def test_the_estimate_falls_to_zero(tmp_path):
    log = carry_out(plan(), tmp_path)
    assert None not in log.estimates
    assert log.estimates[-1] == 0.0
    assert log.estimates[0] > 0.0


def forecast_of(work: dict[Cell, tuple[int, float]]) -> Forecast:
    """A forecast for cells of so many steps of so many FLOPs each."""
    return Forecast({cell: Work(steps, steps * flops) for cell, (steps, flops) in work.items()})


def test_a_forecast_prefers_the_same_cell_then_the_same_entry():
    small, large, other = Cell("a", "1k"), Cell("a", "100k"), Cell("b", "10k")
    forecast = forecast_of({small: (500, 1e6), large: (500, 1e8), other: (200, 1e7)})
    assert not forecast.knows
    assert forecast.cost(large) > forecast.cost(other) > forecast.cost(small)
    forecast.observe(small, 2.0)
    assert forecast.cost(small) == 2.0
    assert forecast.cost(large) == pytest.approx(20.0)  # 100 times the FLOPs, by their square root
    assert forecast.cost(other) == pytest.approx(2.0 * 10**0.5 * 200 / 500)
    forecast.observe(large, 50.0)
    forecast.observe(large, 70.0)
    assert forecast.cost(large) == 60.0
    assert forecast.cost(small) == 2.0
    steps = (2.0 / 500 / 1e6**0.5 * 60.0 / 500 / 1e8**0.5) ** 0.5 * 1e7**0.5
    assert forecast.cost(other) == pytest.approx(200 * steps)


@given(st.floats(1e-12, 1e-6), st.floats(0.0, 1.5), st.permutations(range(5)), st.integers(2, 4))
def test_a_forecast_finds_the_power_by_which_time_grows_with_flops(scale, power, order, count):
    """Seconds of a step that are a power of its FLOPs are found exactly, whatever the steps and which were measured."""
    work = {Cell("a", f"{k}"): (100 + 50 * k, 10.0 ** (5 + k / 2)) for k in range(5)}
    cells = [list(work)[k] for k in order]
    seconds = {cell: max(steps * scale * flops**power, 1e-3) for cell, (steps, flops) in work.items()}
    forecast = forecast_of(work)
    for cell in cells[:count]:
        forecast.observe(cell, seconds[cell])
    if min(seconds.values()) > 1e-3:
        assert [forecast.cost(cell) for cell in cells] == pytest.approx([seconds[cell] for cell in cells])


def test_equal_flops_in_more_steps_of_a_smaller_model_take_longer():
    small, large = Cell("a", "3k", 10_000), Cell("a", "100k", 300)
    forecast = forecast_of({small: (10_000, 3e6), large: (300, 1e8)})
    forecast.observe(large, 30.0)
    assert forecast.cost(small) == pytest.approx(10_000 * 0.1 * (3e6 / 1e8) ** 0.5)


def test_without_flops_all_models_count_alike_until_measured():
    cells = [Cell("a", "3k"), Cell("a", "10M"), Cell("b", "1")]
    forecast = Forecast({cell: Work(100 * (1 + k), float("nan")) for k, cell in enumerate(cells)})
    forecast.observe(cells[0], 5.0)
    assert [forecast.cost(cell) for cell in cells] == pytest.approx([5.0, 10.0, 15.0])


def test_a_forecast_is_held_to_what_training_can_do():
    work = {Cell("a", size): (10, flops) for size, flops in (("1k", 1e6), ("10k", 1e7), ("100k", 1e8))}
    small, middle, large = work
    steep = forecast_of(work)
    steep.observe(small, 1.0)
    steep.observe(middle, 1e9)
    assert steep.cost(large) == pytest.approx(1e9 * 10**1.5)


def test_a_budget_leaves_out_what_would_not_end_in_time(tmp_path, journal):
    """Of 8 runs of about 0.4 s each, one after the other, as many begin as 2 s allow."""
    brake = tmp_path / "brake"
    brake.touch()
    slow = faulty(brake=str(brake))
    grid = plan(architectures={"slow": slow, "huge": slow | {"sizes": ["200000"], "treatment": "frames"}}, data=[16])
    started = time.monotonic()
    log = carry_out(grid, tmp_path / "out", budget=1.0)
    assert {o.job.cell.label for o in log.outcomes} == {"slow"}, "the smallest comes first, and tells of the largest"
    assert time.monotonic() - started < 5.0
    brake.unlink()
    assert len(carry_out(grid, tmp_path / "out", budget=600.0).outcomes) == len(grid) - len(log.outcomes)
    assert set(journal("start").values()) == {1}
    assert carry_out(plan(), tmp_path / "none", budget=1e-9).outcomes == []
