"""How long models are trained: by steps, epochs or budgets of compute, on listed data or as much as is seen."""

from __future__ import annotations

import hashlib
import itertools
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scisci.contracts.errors import UserError
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study, load_study

from .grid import plan, study

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
BATCH = 8
BUDGETS = st.lists(st.floats(1e6, 1e12), min_size=1, max_size=4, unique=True)


def by_compute(budgets: Any, data: Any = "seen", available: int = 2**20) -> Plan:
    """A plan of models of 2,000 and 4,000 FLOPs per sample."""
    grid = plan(compute=budgets, data=data, optimization={"batch_size": BATCH})
    return grid.model_copy(update={"available": available})


def names(grid: Plan) -> list[str]:
    return [spec.run for _, spec in grid.specs()]


@given(st.floats(1e6, 1e12), st.integers(1, 10**6))
def test_a_budget_gives_the_steps_whose_flops_are_nearest_to_it(budget, available):
    grid = by_compute([budget], available=available)
    assert len(grid) == 2 * 2
    for cell, spec in grid.specs():
        of_a_step = 1000.0 * int(cell.size) * min(BATCH, available)
        assert abs(spec.optimization.steps * of_a_step - budget) <= of_a_step / 2 * (1 + 1e-9)
        assert grid.work(cell) == (spec.optimization.steps, spec.optimization.steps * of_a_step)
        if available >= BATCH:
            assert spec.data == min(spec.optimization.steps * BATCH, available), "each sample is seen once"
        else:
            assert spec.data == available


@given(BUDGETS, st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True))
def test_budgets_are_one_more_dimension_of_the_grid(budgets, data):
    alone = [set(names(by_compute([budget], data))) for budget in budgets]
    grid = by_compute(budgets, data)
    assert set(names(grid)) == set.union(*alone)
    for cell in grid.cells:
        assert {
            spec.optimization.steps for spec in map(grid.spec, [cell] * grid.count(cell), range(grid.count(cell)))
        } == {cell.steps}


@given(st.floats(0.01, 100), st.lists(st.integers(1, 10**5), min_size=1, max_size=5, unique=True))
def test_epochs_are_steps_in_proportion_to_data(epochs, data):
    grid = plan(data=data, optimization={"epochs": epochs, "batch_size": BATCH})
    planned = {(cell.size, spec.data, spec.seed): (cell, spec) for cell, spec in grid.specs()}
    assert len(planned) == len(grid) == 2 * len(data) * 2
    for (_, amount, _), (cell, spec) in planned.items():
        steps = spec.optimization.steps
        assert cell.steps == steps
        assert steps == 1 or abs(steps * min(BATCH, amount) - epochs * amount) <= min(BATCH, amount) / 2 * (1 + 1e-9)


def test_cells_say_their_steps_only_where_these_differ():
    assert plan().cells == [Cell("linear", "2"), Cell("linear", "4")]
    assert [str(cell) for cell in by_compute([1e6, 1e7]).cells] == [
        "linear 2 62 steps",
        "linear 2 625 steps",
        "linear 4 31 steps",
        "linear 4 312 steps",
    ]


def test_runs_of_studies_by_steps_keep_their_names():
    """Those of configs/studies/demo.yaml before there were budgets, for one content of its data and one code."""
    grid = Plan(study=load_study(STUDIES / "demo.yaml"), domain="atoms", fingerprint="f" * 64, code_version="1")
    runs = names(grid)
    assert (len(runs), runs[0], runs[-1]) == (48, "e6530360eb9b2708", "afd439e23e1f03f8")
    assert hashlib.sha256(" ".join(runs).encode()).hexdigest()[:16] == "e6093fe0dc876c8f"


@pytest.mark.parametrize(
    ("ladder", "rungs"),
    [
        ({"from": 256, "to": 16384, "ratio": 2}, (256, 512, 1024, 2048, 4096, 8192, 16384)),
        ({"from": 100, "to": 999, "ratio": 10**0.5}, (100, 316)),
        ({"from": 7, "to": 7, "ratio": 3}, (7,)),
        ([5, 3], (5, 3)),
    ],
)
def test_amounts_of_data_may_be_a_ladder(ladder, rungs):
    assert Study.model_validate(study(data=ladder)).amounts == rungs


def test_the_study_of_the_documentation_can_be_read(tmp_path):
    page = (STUDIES.parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")
    lines = itertools.dropwhile(lambda line: not line.startswith("    study:"), page.splitlines())
    block = itertools.takewhile(lambda line: line.startswith("    "), lines)
    (tmp_path / "study.yaml").write_text(textwrap.dedent("\n".join(block)), encoding="utf-8")
    assert load_study(tmp_path / "study.yaml").amounts == (64, 256, 1024, 4096)


def test_budgets_are_read_as_a_person_writes_them(tmp_path):
    """YAML takes 1e12, without a point, for text."""
    content = yaml.safe_dump(study(optimization={"batch_size": 4}, data="seen")) + "compute: [1e12, 3.5e12]\n"
    (tmp_path / "study.yaml").write_text(content)
    assert load_study(tmp_path / "study.yaml").compute == (1e12, 3.5e12)


def test_budgets_may_be_a_ladder():
    ladder = {"from": "1e12", "to": "1e14", "ratio": 10}
    assert by_compute(ladder).study.compute == pytest.approx((1e12, 1e13, 1e14))


@given(st.integers(1, 10**6), st.floats(1.5, 10), st.integers(0, 6))
def test_a_ladder_ends_at_the_last_rung_that_is_not_above(start, ratio, rungs):
    end = start * ratio**rungs
    found = Study.model_validate(study(data={"from": start, "to": end, "ratio": ratio})).amounts
    assert len(found) == rungs + 1
    assert found[-1] == round(end)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compute": [1e12]}, "both compute and optimization.steps"),
        ({"optimization": {"steps": 3, "epochs": 2}}, "both optimization.steps and optimization.epochs"),
        ({"optimization": {"batch_size": 4}}, "says how long models are trained, but there is none of them"),
        ({"data": "seen"}, "data: seen needs compute"),
        ({"data": "all"}, r"data\S*\s+Input should be 'seen'"),
        ({"data": {"from": 8, "to": 16}}, "a ladder is {from: 256"),
        ({"data": {"from": 8, "to": 16, "ratio": 1}}, "a ladder is {from: 256"),
        ({"data": {"from": 1, "to": 4, "ratio": 1.1}}, "data lists 1 twice"),
        ({"compute": [0.0], "optimization": {}}, "compute"),
        ({"compute": [1e9, 1e9], "optimization": {}}, "compute lists 1000000000.0 twice"),
        (
            {
                "compute": [1e9],
                "optimization": {},
                "architectures": {"linear": {"sizes": ["2"], "learning_rate": 0.1, "steps": 5}},
            },
            "'linear' has steps of its own, the study compute",
        ),
        (
            {
                "compute": [1e9],
                "optimization": {},
                "data": "seen",
                "architectures": {"linear": {"sizes": ["2"], "learning_rate": {"2": {16: 0.1}}}},
            },
            "learning_rate of linear, 2 is by amount of data, which is 'seen'",
        ),
    ],
)
def test_contradictions_are_refused(changes, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Study.model_validate(study(**changes))


def test_a_plan_by_compute_survives_being_written(tmp_path):
    grid = by_compute([1e6, 1e7])
    grid.write(tmp_path)
    assert Plan.read(tmp_path) == grid
    assert names(Plan.read(tmp_path)) == names(grid)


def real(store: Path, **changes: Any) -> Study:
    entries = {"mpnn": {"sizes": ["3k", "10k"], "learning_rate": 0.01}}
    recipe = {"optimization": {"batch_size": BATCH}, "dataset": str(store), "architectures": entries}
    return Study.model_validate(study(**recipe) | changes)


def test_budgets_that_make_no_training_are_refused(small_store):
    grid = make_plan(real(small_store, compute=[1e9], data="seen"))
    least = grid.flops["mpnn"]["10k"] * BATCH * 10
    with pytest.raises(UserError, match=r"compute 1\.2e\+08 gives mpnn 10k 7 steps, which is no training; leave the"):
        make_plan(real(small_store, compute=[1e9, 0.7 * least], data="seen"), grid)
    with pytest.raises(UserError, match="two budgets of compute give mpnn 3k the same training"):
        make_plan(real(small_store, compute=[1e9, 1.0001e9], data="seen"), grid)


def test_what_an_earlier_plan_counted_is_not_counted_again(small_store, monkeypatch):
    first = make_plan(real(small_store, compute=[1e9], data="seen"))
    monkeypatch.setattr("scisci.tasks.costs.flops_per_sample", None)
    assert make_plan(real(small_store, compute=[2e9], data=[64]), first).flops == first.flops
    for other in ({"fingerprint": "0" * 64}, {"code_version": "0"}):
        with pytest.raises(TypeError):
            make_plan(first.study, first.model_copy(update=other))
