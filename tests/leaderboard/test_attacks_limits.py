"""What no submission may do, whatever it holds: take much memory, stop the check, or end it in another way."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scisci.leaderboard import safe_hdf5
from scisci.leaderboard.checking import check
from scisci.leaderboard.safe_hdf5 import Refused, open_untrusted

from .attacks import REFUSED
from .attacks.registry import FILE

GROWING = (
    *("huge_shape_of_fill_values", "countless_chunks", "huge_chunk", "huge_contiguous_array", "chunk_that_inflates"),
    *("highly_compressible", "countless_ids", "deflated_twice", "huge_attribute", "thousands_of_arrays", "huge_file"),
    *("alias_bomb", "deep_nesting", "huge_description", "countless_runs"),
)
# The high-water mark of the kernel, since what getrusage says begins with that of the process before.
MEASURE = """
import json, sys
from pathlib import Path
from scisci.leaderboard import safe_hdf5
from scisci.leaderboard.checking import check

def most(pid):
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])

counts, marks = [], []
for path in map(Path, sys.argv[1:]):
    counts.append(len(check(path).refused))
    marks += [most(one.pid) for one in [safe_hdf5._inspector._process] if one]
print(json.dumps([counts, most("self"), max(marks)]))
"""


def wide_errors(folder: Path) -> None:
    """As many errors in a description as its size allows."""
    wide = "[" + "{}," * 19_990 + "]"
    (folder / "submission.yaml").write_text("\n".join(f"{key}: {wide}" for key in ("runs", "authors", "licence")))


def many_attributes(folder: Path) -> None:
    """A header of tens of megabytes, which is read when a file is opened."""
    with h5py.File(folder / FILE, "r+") as file:
        for k in range(300):
            file.attrs[f"note {k}"] = np.bytes_(b"x" * 64_000)


@pytest.mark.slow
def test_no_submission_takes_a_gigabyte(submission: Path, tmp_path: Path) -> None:
    folders = []
    for k, attack in enumerate([*(REFUSED[name][0] for name in GROWING), wide_errors, many_attributes]):
        folders.append(tmp_path / str(k) / "tiny-model")
        shutil.copytree(submission, folders[-1])
        attack(folders[-1])
    command = [sys.executable, "-c", MEASURE, *map(str, folders)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    counts, own, inspector = json.loads(told)
    assert all(counts)
    assert own < 2**20  # KiB
    assert inspector < 2**20


def test_a_file_that_stops_the_library_is_refused_and_the_next_is_read(
    submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = submission / FILE
    for crashes in (False, True):
        with open_untrusted(path, submission) as file:
            assert len(file["ids"]) == 12
        process = safe_hdf5._inspector._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        path.touch()
        if crashes:
            threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
        with monkeypatch.context() as patch:
            patch.setattr(safe_hdf5, "SECONDS", 1.0)
            with pytest.raises(Refused, match="makes the HDF5 library crash"), open_untrusted(path, submission):
                pass
    with open_untrusted(path, submission) as file:
        assert len(file["ids"]) == 12


def test_modules_in_the_working_folder_are_not_imported(
    submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe_hdf5._inspector.stop()
    monkeypatch.chdir(tmp_path)
    for name in ("h5py", "json", "yaml", "scisci"):
        (tmp_path / f"{name}.py").write_text("open('mark', 'w')")
    assert check(submission).refused == ()
    assert not (tmp_path / "mark").exists()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_refused_or_change_nothing_but_values(
    submission: Path, monkeypatch: pytest.MonkeyPatch, flips: list[tuple[float, int]]
) -> None:
    monkeypatch.setattr(safe_hdf5, "SECONDS", 5.0)
    path = submission / FILE
    good = path.with_name("ood_600K.h5").read_bytes()
    metadata = [k for k in range(len(good)) if k < 2048 or any(good[k - 16 : k + 16])]
    content = bytearray(good)
    for place, value in flips:
        content[metadata[int(place * len(metadata))]] = value
    path.write_bytes(bytes(content))
    with suppress(Refused), open_untrusted(path, submission) as file:
        assert sum(file[name][...].nbytes for name in file) < 2**24


def test_a_submission_with_flipped_bytes_is_checked_to_its_end(submission: Path) -> None:
    rng = np.random.default_rng(0)
    for path in sorted(submission.glob("predictions/*/*.h5")):
        content = np.frombuffer(path.read_bytes(), dtype="u1").copy()
        content[rng.integers(0, 2048, 3)] ^= 255
        path.write_bytes(content.tobytes())
    found = check(submission)
    assert {finding.where for finding in found.refused} <= {
        str(path.relative_to(submission)) for path in submission.glob("predictions/*/*.h5")
    }
    assert found.refused


def test_descriptors_and_processes_do_not_pile_up(submission: Path) -> None:
    (submission / FILE).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4096))
    check(submission)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        check(submission)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
