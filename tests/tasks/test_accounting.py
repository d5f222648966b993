"""What a run is said to have cost."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.module import StoreDataModule
from scisci.data.store import Store
from scisci.tasks.accounting import hardware, training_flops
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.run import Curve, execute
from scisci.tasks.series import SeriesTask
from scisci.tasks.sharing import MOST_CORES, CpuUse, either, gpu_shared, others_among
from scisci.tasks.version import code_version


def spec_for(store: Path, architecture: str, steps: int, **evaluation: object) -> RunSpec:
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=Store(store).fingerprint,
        architecture=architecture,
        size="3k",
        data=48,
        optimization=OptimizationSpec(steps=steps, learning_rate=0.003, batch_size=8, validations=1),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=0, **evaluation),
        code_version=code_version(),
    )


def test_flops_do_not_depend_on_what_was_drawn_before(series_store: Path) -> None:
    """A patch transformer draws how much of the window it predicts; the drawing goes on as if nothing was counted."""
    task = SeriesTask("patch_encoder", "1k", {"patch": 4}, context=64, horizon=16)
    task.prepare(StoreDataModule(str(series_store)))
    found, draws = set(), []
    for seed in range(4):
        torch.manual_seed(seed)
        found.add(training_flops(task, Store(series_store)))
        draws.append((torch.initial_seed(), float(torch.rand(()))))
    assert len(found) == 1
    for seed, (kept, draw) in enumerate(draws):
        torch.manual_seed(seed)
        assert (kept, draw) == (seed, float(torch.rand(())))


@pytest.mark.parametrize("architecture", ["transformer", "painn"])
def test_flops_of_a_compiled_model_are_those_of_the_model(small_store: Path, architecture: str) -> None:
    """Compiled kernels would escape the count, which is taken of the model as it is written."""
    found = []
    for compiled in (False, True):
        task = AtomisticTask(architecture=architecture, size="3k", compiled=compiled)
        task.prepare(StoreDataModule(str(small_store)))
        found.append(training_flops(task, Store(small_store)))
    assert found[0] == found[1] > 0


clocks = st.floats(0, 1e6)


@given(clocks, clocks, clocks, st.floats(0.6, 1e5), st.floats(0, 64), st.floats(0, 8))
def test_others_are_what_the_machine_did_beyond_the_run(
    wall: float, machine: float, own: float, seconds: float, cores: float, others: float
) -> None:
    before = CpuUse(wall, machine, own)
    work = cores * seconds
    after = CpuUse(wall + seconds, machine + work + others * seconds, own + work)
    # Clocks that have run for long round off some of what is added to them.
    assume(abs(others - MOST_CORES) > 1e-6)
    assert before.shared_until(after) is (others > MOST_CORES)


@pytest.mark.parametrize(
    ("seconds", "machine", "own"),
    [
        (10.0, 0.0, 9.0),  # clocks that stand still, as in some sandboxes
        (0.4, 0.8, 0.4),  # too short for clocks that tick every hundredth of a second
    ],
)
def test_what_the_clocks_cannot_tell_is_not_known(seconds: float, machine: float, own: float) -> None:
    assert CpuUse(0.0, 0.0, 0.0).shared_until(CpuUse(seconds, machine, own)) is None


@pytest.mark.parametrize(
    ("processes", "shared"), [({7}, False), ({7, 8}, True), ({8, 9}, True), ({8}, None), (set(), None)]
)
def test_processes_on_a_gpu_besides_this_one(processes: set[int], shared: bool | None) -> None:
    assert others_among(processes, 7) is shared


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        *((True, part, True) for part in (True, False, None)),
        *((part, True, True) for part in (False, None)),
        *((None, False, None), (False, None, None), (None, None, None), (False, False, False)),
    ],
)
def test_parts_of_a_training_are_shared_if_either_is(
    before: bool | None, after: bool | None, whole: bool | None
) -> None:
    assert either(before, after) is whole


SPIN = "import time; end = time.perf_counter() + 1.2\nwhile time.perf_counter() < end: pass"


def test_work_of_children_is_its_own_and_stays_so_when_they_end() -> None:
    before, earlier = CpuUse.now(), resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    time.sleep(0.9)
    during = CpuUse.now()
    child.wait()
    after = CpuUse.now()
    later = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = later.ru_utime + later.ru_stime - earlier.ru_utime - earlier.ru_stime
    # The clocks of a child at work tick every hundredth of a second.
    assert 0.05 < during.own - before.own <= after.own - before.own + 0.02
    assert spent <= after.own - before.own < 1.5 * spent + 0.1


def test_a_run_beside_a_busy_process_is_marked_and_says_its_hardware(small_store: Path, tmp_path: Path) -> None:
    """The busy one is a grandchild whose parent has ended, so that it is nobody's child here."""
    command = [sys.executable, "-c", "while True: pass"]
    start = f"from subprocess import *; print(Popen({command}, stdout=DEVNULL, stderr=DEVNULL).pid)"
    other = int(subprocess.run([sys.executable, "-c", start], capture_output=True, check=True).stdout)
    try:
        result = execute(spec_for(small_store, "mpnn", steps=150), tmp_path)
    finally:
        os.kill(other, signal.SIGKILL)
    assert result.training_seconds > 0.5
    assert result.shared is True
    assert result.hardware is not None
    assert result.hardware.cores == len(os.sched_getaffinity(0))
    assert result.hardware.processor in result.device
    assert result.hardware.memory == pytest.approx(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, rel=1e-3
    )
    assert result.hardware.gpu is None
    assert RunResult.model_validate_json(result.model_dump_json()) == result


def test_a_record_of_before_reads_and_does_not_know(small_store: Path) -> None:
    old = {"run": "0" * 16, "status": "ok", "domain": "atoms", "device": "cpu", "schema_version": 1}
    assert (RunResult(**old).shared, RunResult(**old).hardware) == (None, None)
    curve = Curve()
    curve.load_state_dict({"rows": [], "seconds": 3.0})
    assert curve.shared is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_hardware_of_a_gpu() -> None:
    device = torch.device("cuda", 0)
    found = hardware(device)
    assert found.gpu == torch.cuda.get_device_name(device)
    assert found.gpu_memory == pytest.approx(torch.cuda.mem_get_info(device)[1] / 2**20, rel=0.1)
    assert found.cuda == torch.version.cuda
    assert re.fullmatch(r"[\d.]+", found.driver or "")
    assert gpu_shared(device) in (True, False, None)
