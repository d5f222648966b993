"""Clusters: two nodes of which one is lost, a cluster that ends, and needs that no machine meets."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest

from scisci.contracts.errors import UserError
from scisci.sweep.attempt import Destination
from scisci.sweep.drivers import Drivers, Driving, Start
from scisci.sweep.records import Records
from scisci.sweep.resources import Needs
from scisci.sweep.workers import Post, Worker

from .grid import EXECUTE, alive, carry_out, faulty, plan, results, running, timeless, wait_for

HASTE = "import scisci.sweep.cluster as c; c.PATIENCE_SECONDS = c.COUNT_AGAIN_SECONDS = 2.0"
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def nodes(workers_find_tests, monkeypatch):
    """A running cluster of two nodes on this machine, of one core each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    yield cluster, cluster.add_node(**NODE)
    cluster.shutdown()


@pytest.mark.slow
def test_the_loss_of_a_node_costs_only_the_run_it_was_at(tmp_path, journal, start_driver, nodes):
    cluster, second = nodes
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake))}, data=[16], seeds=list(range(10)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    driver = start_driver(folder, "ray", address=cluster.address, workers=None)

    def at_work_on_second():
        (raylet,) = second.all_processes["raylet"]
        below = {child.pid for child in psutil.Process(raylet.process.pid).children(recursive=True)}
        return below.intersection(running(tmp_path / "journal"))

    recorded = lambda: set(Records(folder).recorded())
    wait_for(lambda: len(recorded()) >= 3 and at_work_on_second())
    before = recorded()
    starts = {run: journal("start")[run] for run in before}
    cluster.remove_node(second, allow_graceful=False)
    assert driver.wait(120) == 0, (tmp_path / "driver-0.log").read_text()
    assert {run: journal("start")[run] for run in before} == starts
    assert journal("start").total() <= len(grid) + 1, "only what the lost node was at is done twice"
    brake.unlink()
    carry_out(grid, tmp_path / "undisturbed")
    assert {run: timeless(result) for run, result in results(grid, folder).items()} == {
        run: timeless(result) for run, result in results(grid, tmp_path / "undisturbed").items()
    }

    asking = plan(architectures={"greedy": faulty()}, resources={"cpus": 2})
    with pytest.raises(UserError, match=r"a run of greedy 2 needs 2 CPUs, which no machine has \(1 CPU, "):
        carry_out(asking, tmp_path / "greedy", engine="ray", address=cluster.address)

    # a head that hangs while it is asked what nodes there are
    brake.touch()
    folder = tmp_path / "hung"
    grid.write(folder)
    driver = start_driver(folder, "ray", prelude=HASTE, address=cluster.address, workers=None)
    wait_for(lambda: any(Records(folder).recorded()))
    (head,) = cluster.head_node.all_processes["gcs_server"]
    head.process.send_signal(signal.SIGSTOP)
    assert driver.wait(30) == 2
    sentence = "the Ray cluster does not answer; what is recorded stays, and the same command goes on"
    assert (tmp_path / "driver-1.log").read_text().splitlines()[-1] == sentence
    (told,) = Drivers(folder).look()
    assert told.end.reason == sentence
    head.process.kill()


@pytest.mark.slow
def test_a_sweep_ends_when_its_cluster_does_and_goes_on_afterwards(tmp_path, journal, start_driver):
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake))}, data=[16], seeds=list(range(20)))
    folder = tmp_path / "sweep"
    grid.write(folder)
    recorded = lambda: set(Records(folder).recorded())
    starts = {}
    for number, part in enumerate(("raylet", "gcs_server")):
        driver, done = start_driver(folder, "ray"), len(recorded())
        wait_for(lambda done=done: len(recorded()) >= done + 2)
        below = psutil.Process(driver.pid).children(recursive=True)
        os.kill(next(child.pid for child in below if child.name() == part), signal.SIGKILL)
        assert driver.wait(120) == 2
        log = (tmp_path / f"driver-{number}.log").read_text()
        assert re.fullmatch(r"(\[\d.*\n)+the Ray cluster has ended; what is recorded stays, .*\n", log)
        wait_for(lambda: not any(map(alive, running(tmp_path / "journal"))))
        starts |= {run: journal("start")[run] for run in recorded()}
    assert 4 <= len(recorded()) < len(grid)
    brake.unlink()
    carry_out(grid, folder)
    assert {run: journal("start")[run] for run in starts} == starts
    assert {result.status for result in results(grid, folder).values()} == {"ok"}


@pytest.mark.slow
def test_runs_get_what_they_need(tmp_path, workers_find_tests):
    told = faulty(fault="none but report")
    grid = plan(
        architectures={"wide": told | {"resources": {"cpus": 2, "gpus": 0}}, "narrow": told | {"treatment": "frames"}},
        data=[16],
        seeds=[0, 1],
    )
    log = carry_out(grid, tmp_path, engine="ray", workers=2)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    printed = {(o.job.cell.label, Path(tmp_path, "runs", o.result.run, "output.txt").read_text()) for o in log.outcomes}
    assert len(log.outcomes) == 4
    assert printed == {("wide", "2 \n"), ("narrow", f"1 {visible}\n")}


def test_needs_that_no_machine_meets_are_one_sentence(tmp_path, workers_find_tests):
    grid = plan(architectures={"greedy": faulty()}, resources={"memory": "900TB"})
    with pytest.raises(UserError, match=r"needs 1 CPU, 9e\+05 GB of memory, which no machine has"):
        carry_out(grid, tmp_path, engine="ray", workers=1)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ray://head:10001", r"cannot join a cluster by ray://head:10001; run the command on a node of it"),
        ("127.0.0.1:{port}", r"no Ray cluster answers at 127.0.0.1:\d+"),
        ("nonsense", r"cannot join the Ray cluster at nonsense: Invalid address format"),
    ],
)
def test_an_address_without_a_cluster_is_one_sentence(tmp_path, address, sentence):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=sentence):
        carry_out(plan(), tmp_path, engine="ray", address=address.format(port=port))


def test_a_machine_that_shares_no_folder_or_no_locks_is_named(tmp_path):
    machine = re.escape(socket.gethostname())
    post = lambda directory, driver: Post(Destination(tmp_path, "atoms", EXECUTE), str(directory), driver)
    job = None  # it does not come so far
    with pytest.raises(UserError, match=f"{machine} has no folder .*absent; start from one that all machines share"):
        Worker().attempt(post(tmp_path / "absent", tmp_path / "driver"), job, Needs())
    with pytest.raises(UserError, match=f"{machine} does not see {tmp_path}; choose an --out that all machines share"):
        Worker().attempt(post(Path.cwd(), tmp_path / "driver"), job, Needs())
    # a process's own lock does not keep it out, as those of another machine without shared locks would not
    with (
        Driving(tmp_path, Start(engine="ray")) as driving,
        pytest.raises(UserError, match=f"locks on files of {tmp_path} do not reach {machine}"),
    ):
        Worker().attempt(post(Path.cwd(), driving.path), job, Needs())
