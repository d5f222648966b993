"""Where a sweep stands: what is counted, who is at work, how long it will take, and a table that keeps up."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.sweep.cli import main
from scisci.sweep.plan import Cell
from scisci.sweep.records import Records
from scisci.sweep.standing import Watcher, standing
from scisci.sweep.standing_view import _screen

from .grid import carry_out, faulty, plan, results, wait_for

GRID = plan()
SPECS = [spec for _, spec in GRID.specs()]
HOLD = """
import sys
from contextlib import ExitStack
from scisci.sweep.records import Records
with ExitStack() as stack:
    held = [stack.enter_context(Records(sys.argv[1]).claim(run)) for run in sys.argv[2:]]
    print(all(held), flush=True)
    sys.stdin.read()
"""


def record(records: Records, spec, status: str = "ok", seconds: float = 1.0, **more) -> None:
    records.begin(spec)
    reason = None if status == "ok" else f"why it {status}"
    more |= {"status": status, "reason": reason, "seconds": seconds}
    records.commit(spec, RunResult(run=spec.run, domain="atoms", device="cpu", **more))


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, len(SPECS) - 1), st.sampled_from(["ok", "failed", "damage"])), max_size=8))
def test_a_watcher_sees_what_one_sees_who_looks_for_the_first_time(events):
    with tempfile.TemporaryDirectory() as scratch:
        folder, records = Path(scratch), Records(scratch)
        GRID.write(folder)
        watcher, expected = Watcher(folder), {}
        for number, event in events:
            spec = SPECS[number]
            if expected.get(spec.run) == "ok":
                continue  # a good record is not done again
            if event != "damage":
                record(records, spec, event)
            elif spec.run in expected:
                (records.path(spec.run) / "result.json").write_text("{")
            if event != "damage" or spec.run in expected:
                expected[spec.run] = event.replace("damage", "damaged")
            now, fresh = watcher.look(), standing(folder)
            assert now.cells == fresh.cells
            assert now.troubles == fresh.troubles
            assert now.totals == +Counter([*expected.values()]) + Counter(waiting=len(SPECS) - len(expected))
            assert Counter({trouble.status: trouble.count for trouble in now.troubles}) == Counter(
                status for status in expected.values() if status != "ok"
            )


def test_what_was_read_is_not_read_again(tmp_path, monkeypatch):
    carry_out(GRID, tmp_path)
    watcher, read, look = Watcher(tmp_path), [], Records.look
    monkeypatch.setattr(Records, "look", lambda self, run: read.append(run) or look(self, run))
    first = watcher.look()
    assert len(read) == len(GRID)
    assert watcher.look().totals == first.totals == {"ok": len(GRID)}
    assert len(read) == len(GRID)
    larger = plan(seeds=[0, 1, 2])
    larger.write(tmp_path)
    assert watcher.look().totals == {"ok": len(GRID), "waiting": 4}, "the plan was extended"
    plan(seeds=[0]).write(tmp_path)
    assert (watcher.look().totals, watcher.look().unplanned) == ({"ok": 4}, 4)


def test_the_time_left_is_that_of_all_at_work(tmp_path):
    """Of 8 like runs, 2 took 1000 s, 2 have just begun: 6 are left for 2 workers, 3 each."""
    grid = plan(architectures={"linear": {"sizes": ["2"], "learning_rate": 0.1}}, seeds=list(range(4)))
    specs = [spec for _, spec in grid.specs()]
    grid.write(tmp_path)
    records = Records(tmp_path)
    for spec in specs[:2]:
        record(records, spec, seconds=1000.0)
    alone = standing(tmp_path)
    assert (alone.work_left, alone.seconds_left) == (6000.0, None)
    command = [sys.executable, "-c", HOLD, str(tmp_path), *(spec.run for spec in specs[2:4])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        now = standing(tmp_path)
        assert now.totals == {"ok": 2, "running": 2, "waiting": 4}
        assert {one.spec.run for one in now.at_work} == {spec.run for spec in specs[2:4]}
        assert {(one.holder.host, one.holder.pid) for one in now.at_work} == {(socket.gethostname(), process.pid)}
        assert {one.expected for one in now.at_work} == {1000.0}
        assert sum(one.elapsed for one in now.at_work) == pytest.approx(6000.0 - now.work_left)
        assert now.seconds_left == pytest.approx(now.work_left / 2) == pytest.approx(3000.0, abs=60)
        for spec in specs[4:7]:
            record(records, spec, seconds=1000.0)
        # one waits and two have begun
        assert standing(tmp_path).seconds_left == pytest.approx(1500.0, abs=60)
        record(records, specs[7], seconds=1000.0)
        assert standing(tmp_path).seconds_left == pytest.approx(1000.0, abs=60)
        process.communicate("")


def test_status_says_who_is_at_work_and_what_to_do(tmp_path, capsys, start_driver):
    gate = tmp_path / "gate"
    gate.touch()
    quick = {"sizes": ["4"], "learning_rate": 0.1}
    grid = plan(architectures={"linear": quick, "gated": faulty(gate=str(gate))}, data=[16])
    folder = tmp_path / "sweep"
    grid.write(folder)
    drivers = [start_driver(folder, "inline") for _ in range(2)]
    wait_for(lambda: standing(folder).cells[Cell("gated", "2")]["running"] == 2)
    main(["status", str(folder)])
    printed = capsys.readouterr().out
    machine = socket.gethostname()
    for driver in drivers:
        assert printed.count(f"{machine}:{driver.pid}") == 2, "as a driver, and at a run"
        driver.kill()
        driver.wait()
    assert printed.count("ago  at work\n") == 2
    assert "left with 2 workers at work" in printed
    first = next(run for run, result in results(grid, folder).items() if result)
    (folder / "runs" / first / "result.json").write_text("")
    main(["status", str(folder)])
    printed = capsys.readouterr().out
    assert printed.count("killed\n") == 2
    assert "nobody is at work; 'scisci sweep run' goes on" in printed
    assert f"runs/{first}" in printed
    assert "1 run damaged: result.json is damaged" in printed
    assert "'scisci sweep run' does damaged runs again with '--retry damaged'" in printed


def test_what_runs_noted_is_told(tmp_path, capsys):
    GRID.write(tmp_path)
    for spec in SPECS[:3]:
        record(Records(tmp_path), spec, notes=["gone on with at step 7"])
    record(Records(tmp_path), SPECS[3], "failed", notes=["out of memory with whole batches"])
    main(["status", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "\n3 runs noted: gone on with at step 7\n1 run noted: out of memory with whole batches\n" in printed


@pytest.mark.parametrize("height", [16, 24, 40, 100])
def test_a_screen_holds_what_is_under_way(tmp_path, height):
    carry_out(plan(architectures={"bad": faulty(fault="raise")}), tmp_path)
    now = standing(tmp_path)
    done = {Cell(f"entry{i}", str(j)): Counter(ok=24) for i in range(10) for j in range(6)}
    now.cells = done | {Cell("entry7", "3"): Counter(ok=3, running=1), Cell("late", "1"): Counter(waiting=20)}
    console = Console(file=io.StringIO(), width=100, height=height)
    console.print(_screen(now, height))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= height
    words = [tuple(line.split()) for line in lines]
    assert ("entry7", "3", "3", "1", "0") in words
    assert ("late", "1", "0", "0", "20") in words
    assert lines[0].startswith("regressions: ")
    assert "4 runs failed: ValueError: the matrix is singular" in lines
    shown = sum(word[0] == "late" or word[0].startswith("entry") for word in words[4:] if word)
    more = [word for word in words if word[:1] == ("and",) and "…" in word]
    assert [int(word[1]) for word in more] == ([len(now.cells) - shown] if shown < len(now.cells) else [])


class Watch:
    """`scisci sweep status --watch` on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        command = [sys.executable, "-m", "scisci.cli", "sweep", "status", str(folder), "--watch", "0.1"]
        environment = os.environ | {"TERM": "xterm-256color"}
        # of a session of its own, the terminal sends it Ctrl-C
        take = lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=take,
        )
        os.close(theirs)
        self.shown, self._terminal = "", ours
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self._terminal, 65_536).decode()
            except OSError:  # the other side is closed
                return

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def end(self) -> str:
        """What is left on the terminal."""
        assert self.process.wait(120) == 0
        self._reader.join(10)
        os.close(self._terminal)
        return self.shown.rpartition("\x1b[?1049l")[2]


def test_watching_ends_with_the_sweep(tmp_path):
    GRID.write(tmp_path)
    watch = Watch(tmp_path)
    wait_for(lambda: "0 of 8 runs done" in watch.shown)
    assert "nobody is at work" in watch.shown
    carry_out(GRID, tmp_path)
    assert "8 of 8 runs done" in watch.end()


def test_ctrl_c_ends_watching(tmp_path):
    GRID.write(tmp_path)
    watch = Watch(tmp_path)
    wait_for(lambda: "0 of 8 runs done" in watch.shown)
    watch.press(b"\x03")
    left = watch.end()
    assert "0 of 8 runs done" in left
    assert "Traceback" not in left


def test_watching_needs_a_terminal(tmp_path, capsys):
    GRID.write(tmp_path)
    with pytest.raises(UserError, match="--watch needs a terminal; leave it out to print once"):
        main(["status", str(tmp_path), "--watch"])
    with pytest.raises(SystemExit, match="2"):
        main(["status", "--watch", str(tmp_path)])
    assert "is no number of seconds (DIR goes before --watch)" in capsys.readouterr().err
