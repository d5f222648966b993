"""What runs occupy: read from study files, settled per entry and size, and how many fit on a machine."""

from __future__ import annotations

import datetime

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from scisci.contracts.errors import UserError
from scisci.sweep.attempt import Destination, Job, attempt
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.resources import Needs, seconds
from scisci.sweep.study import load_study
from scisci.tasks.threads import threads

from .grid import EXECUTE, carry_out, plan, study
from .regression import execute as train

LINEAR = {"sizes": ["2", "4"], "learning_rate": 0.1}
UNITS = st.sampled_from([("s", "seconds"), ("m", "minutes"), ("min", "minutes"), ("h", "hours"), ("d", "days")])


def asking(resources, own):
    return plan(architectures={"linear": LINEAR | {"resources": own}}, resources=resources)


def test_an_entry_and_a_size_go_before_the_study(tmp_path):
    whole = asking({"cpus": 2, "memory": "1.5GiB"}, {"gpus": 0.25})
    assert whole.needs(Cell("linear", "2")) == Needs(2, 0.25, 3 * 2**29)
    by_size = asking({"gpus": 1}, {"4": {"cpus": 3, "gpus": 0, "memory": "500MB"}})
    assert by_size.needs(Cell("linear", "2")) == Needs(1, 1, 0)
    assert by_size.needs(Cell("linear", "4")) == Needs(3, 0, 500_000_000)
    assert plan().needs(Cell("linear", "2")) == Needs(1, None, 0)
    for grid in (whole, by_size):
        grid.write(tmp_path)
        assert Plan.read(tmp_path) == grid
        assert [spec.run for _, spec in grid.specs()] == [spec.run for _, spec in plan().specs()]


@pytest.mark.parametrize(
    ("resources", "own", "sentence"),
    [
        ({"cpu": 1}, {}, r"unknown key in resources 'cpu'; did you mean 'cpus'"),
        ({}, {"gpu": 1}, r"unknown key in architectures.linear.resources 'gpu'; did you mean .*'gpus'"),
        ({}, {"4": {"cores": 1}}, r"unknown key in architectures.linear.resources.4 'cores'"),
        ({}, {"8": {"cpus": 1}}, r"unknown size in resources '8'"),
        ({"cpus": 0}, {}, r"resources.cpus: .*greater than 0"),
        ({"gpus": 1.5}, {}, r"resources.gpus: 1.5 GPUs are neither a share of one nor whole ones"),
        (
            {"gpus": 3},
            {},
            r"runs of linear 2 have 3 GPUs, over which batches of 16 samples cannot be shared out; give a m",
        ),
        ({"gpus": -1}, {}, r"resources.gpus: .*greater than or equal to 0"),
        ({"memory": "2 bananas"}, {}, r"resources.memory: '2 bananas' is not a number with a unit, such as 500MB"),
        ({"memory": "0GB"}, {}, r"resources.memory: .*greater than 0"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, resources, own, sentence):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study(architectures={"linear": LINEAR | {"resources": own}}, resources=resources)))
    with pytest.raises(UserError, match=sentence):
        load_study(path)


@given(st.integers(0, 64), st.integers(0, 8), st.integers(1, 9), st.integers(1, 20))
def test_as_many_runs_fit_as_can_be_placed(cores, devices, cpus, share):
    """Against placing one run after the other, a share of a GPU on one device."""
    free, room, placed = cores, [share] * devices, 0
    while free >= cpus and (at := next((k for k, left in enumerate(room) if left), None)) is not None:
        free, placed = free - cpus, placed + 1
        room[at] -= 1
    assert Needs(cpus, 1 / share).times_in({"CPU": cores, "GPU": devices}) == placed


def test_whole_gpus_and_memory_limit_too():
    node = {"CPU": 16.0, "GPU": 5.0, "memory": 10e9}
    assert Needs(1, 2).times_in(node) == 2
    assert Needs(1, 0.4).times_in(node) == 10
    assert Needs(1, None, 3 * 10**9).times_in(node) == 3
    assert Needs(1, 1).times_in({"CPU": 16.0}) == 0


@given(st.lists(st.tuples(st.integers(0, 99), UNITS), min_size=1, max_size=4))
def test_time_spans_are_sums(parts):
    text = "".join(f"{number}{unit}" for number, (unit, _) in parts)
    expected = sum((datetime.timedelta(**{name: number}) for number, (_, name) in parts), datetime.timedelta())
    if expected:
        assert seconds(text) == expected.total_seconds()
    else:
        with pytest.raises(ValueError, match="no time at all"):
            seconds(text)


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-1h", "1h 3x", "1e3s"])
def test_other_words_are_no_time_span(text):
    with pytest.raises(ValueError, match="is not a number with a unit, such as 45s, 90m, 2h, 1d or 1h30m"):
        seconds(text)


def execute(spec, folder, gpus=1):
    (folder / "gpus.txt").write_text(str(gpus))
    return train(spec, folder)


def test_a_run_is_told_of_several_gpus(tmp_path):
    grid = asking({"gpus": 1}, {"4": {"gpus": 2}})
    for number, cell in enumerate(grid.cells):
        job = Job(cell, grid.spec(cell, 0))
        attempt(Destination(tmp_path, "atoms", f"{__name__}:execute"), job, grid.needs(cell))
        assert (tmp_path / "runs" / job.spec.run / "gpus.txt").read_text() == str(number + 1)


def test_gpus_that_are_not_there_end_the_sweep_before_a_run(tmp_path):
    with pytest.raises(UserError, match=r"a run is to have 16 GPUs, of which \d are here; lower gpus"):
        carry_out(asking({"gpus": 16}, {}), tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_has_as_many_threads_as_cores(tmp_path):
    def used():
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        return torch.get_num_threads(), blas

    before = used()
    with threads(2):
        assert used() == (2, {2})
        carry_out(asking({"cpus": 3}, {}), tmp_path, execute=EXECUTE)
        assert used() == (3, {3})
    assert used() == before
