"""The start of a sweep: a plan from a process of its own, beside a cluster that is there for it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import ray
import yaml

from scisci.contracts.errors import UserError
from scisci.sweep.drive import sweep
from scisci.sweep.plan import make_plan
from scisci.sweep.resources import Needs
from scisci.sweep.start import started
from scisci.sweep.study import load_study

from .grid import EXECUTE, Log, plan, wait_for

HERE = {"engine": "ray", "address": None, "workers": 2}


def study_file(folder: Path, size: str) -> Path:
    content = {
        "study": "start",
        "dataset": "xtb-molecules",
        "architectures": {"mpnn": {"sizes": [size], "learning_rate": 0.01}},
        "data": [8],
        "optimization": {"steps": 1},
        "evaluation": {"splits": ["test"]},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_a_new_sweep_gets_its_plan_and_a_cluster_and_an_old_one_only_its_plan(tmp_path, capfd):
    study, folder = study_file(tmp_path, "3k"), tmp_path / "out"
    with started(study, folder, **HERE) as (made, cluster):
        assert made == make_plan(load_study(study))
        assert cluster.capacity(Needs()) == 2
        assert not folder.exists()
        state = sweep(plan(seeds=[0]), tmp_path / "other", Log(), workers=2, cluster=cluster, execute=EXECUTE)
        assert state.statuses == {"ok": 4}
        cluster.check()
    assert not ray.is_initialized()
    made.write(folder)
    with started(study, folder, **HERE) as begun:
        assert begun == (made, None)
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_what_is_wrong_with_a_study_ends_the_cluster_too(tmp_path, capfd):
    study, folder = study_file(tmp_path, "4k"), tmp_path / "out"
    with pytest.raises(UserError, match="unknown size of mpnn '4k'"), started(study, folder, **HERE):
        raise AssertionError("a sweep began")
    assert not folder.exists()
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_nothing_outlives_a_command_that_is_killed_as_it_starts(tmp_path):
    command = ["-m", "scisci.cli", "sweep", "run", str(study_file(tmp_path, "3k")), "--out", str(tmp_path / "out")]
    driver = psutil.Popen([sys.executable, *command])

    def plans(process):
        return "spawn_main" in " ".join(process.cmdline()) and any("torch" in m.path for m in process.memory_maps())

    def gone(process):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    wait_for(lambda: any(map(plans, driver.children())))
    started_by_it = driver.children(recursive=True)
    driver.kill()
    driver.wait()
    wait_for(lambda: all(map(gone, started_by_it)), 60)
    assert not (tmp_path / "out").exists()
