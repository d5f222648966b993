"""The start of a sweep: workers that are there before its plan, which one of them makes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

from scisci.contracts.errors import UserError
from scisci.sweep.drive import sweep
from scisci.sweep.planning import make_plan
from scisci.sweep.resources import Needs
from scisci.sweep.start import started
from scisci.sweep.study import load_study
from scisci.sweep.workers import own_team

from .grid import EXECUTE, Log, plan, wait_for

HERE = {"engine": "ray", "address": None, "workers": 2}


def study_file(folder: Path, size: str, **entry: Any) -> Path:
    content = {
        "study": "start",
        "dataset": "xtb-molecules",
        "architectures": {"mpnn": {"sizes": [size], "learning_rate": 0.01} | entry},
        "data": [8, 16],
        "optimization": {"steps": 1},
        "evaluation": {"splits": ["test"]},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def look(worker):
    """What a worker is, and has from before it was told anything."""
    names = ("lightning", "torch_geometric", "scisci.tasks.run")
    return os.getpid(), os.environ["OMP_NUM_THREADS"], [name in sys.modules for name in names]


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_a_new_sweep_gets_its_plan_and_workers_who_do_it_and_an_old_one_only_its_plan(tmp_path, journal, capfd):
    study, folder = study_file(tmp_path, "3k"), tmp_path / "out"
    with own_team(load_study(study), 2) as team:
        looks = ray.get([worker.__ray_call__.remote(look) for worker in team.workers])
        assert [one[1:] for one in looks] == [("1", [True, True, False])] * 2
        made = team.plan(load_study(study))
        assert made == make_plan(load_study(study))
        assert team.cluster.capacity(Needs()) == 2
        log = Log()
        state = sweep(plan(seeds=[0]), tmp_path / "other", log, workers=2, team=team, execute=EXECUTE)
        assert state.statuses == {"ok": 4}
        pids = {int(path.read_text()) for path in (tmp_path / "journal").glob("[!.]*.start.*")}
        assert pids <= {pid for pid, *_ in looks}
        with pytest.raises(UserError, match="the process that makes the plan was killed"):
            team.plan(load_study(study))  # the sweep has sent its workers away
        team.cluster.check()
    assert not ray.is_initialized()
    made.write(folder)
    with started(study, folder, **HERE) as begun:
        assert begun == (made, None)
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_where_runs_differ_in_what_they_need_one_worker_makes_the_plan(tmp_path):
    study = load_study(study_file(tmp_path, "3k", sizes=["3k", "10k"], resources={"10k": {"cpus": 2}}))
    with own_team(study, None) as team:
        assert len(team.workers) == 1
        assert team.cluster.capacity(Needs(cpus=2)) == 1
        assert team.plan(study) == make_plan(study)


@pytest.mark.slow
@pytest.mark.usefixtures("workers_find_tests")
def test_workers_do_not_start_along_with_ray_where_memory_limits_their_number(tmp_path):
    study = load_study(study_file(tmp_path, "3k", resources={"memory": "300TB"}))
    with own_team(study, 4) as team:
        assert team.workers == []
        names = [process.name() for process in psutil.Process().children(recursive=True)]
        assert "raylet" in names
        assert not [name for name in names if name.startswith("ray::") and "Agent" not in name]
        assert team.plan(study) == make_plan(study)


def test_a_part_of_a_sweep_gets_its_workers_when_its_runs_are_known(tmp_path):
    study = study_file(tmp_path, "3k")
    with started(study, tmp_path / "out", part=True, **HERE) as begun:
        assert begun == (make_plan(load_study(study)), None)
    assert not ray.is_initialized()


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

    def prepares(process):
        return process.name().startswith("ray::") and any("torch" in m.path for m in process.memory_maps())

    def gone(process):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    wait_for(lambda: sum(map(prepares, driver.children(recursive=True))) == 2)
    # Ray's agents, which do no work, look for it for another minute
    started_by_it = [process for process in driver.children(recursive=True) if "Agent" not in process.name()]
    driver.kill()
    driver.wait()
    wait_for(lambda: all(map(gone, started_by_it)))
    assert not (tmp_path / "out").exists()
