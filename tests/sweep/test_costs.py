"""Costs of a plan: against what runs record, against every schedule there is, and as they are printed."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.results import read_results
from scisci.sweep.cli import main
from scisci.sweep.costs import cell_flops, costs, makespan
from scisci.sweep.plan import Cell
from scisci.sweep.planning import make_plan
from scisci.sweep.study import load_study

from .grid import carry_out, plan, study


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 2)), min_size=1, max_size=4), st.integers(1, 3))
def test_the_schedule_is_near_the_best_of_all(runs, workers):
    """Of all ways to share out the runs; Graham's bound for longest first is 4/3 - 1/(3 workers)."""
    single = [seconds for seconds, count in runs for _ in range(count)]
    ways = np.array(list(itertools.product(range(workers), repeat=len(single))))
    loads = np.stack([np.where(ways == worker, single, 0).sum(axis=1) for worker in range(workers)])
    best = loads.max(axis=0).min()
    assert best <= makespan(runs, workers) <= best * (4 / 3 - 1 / (3 * workers)) * (1 + 1e-12)
    assert makespan(runs, 1) == sum(single)


def test_the_longest_runs_come_first():
    assert makespan([(1.0, 4), (4.0, 1)], 2) == 4.0
    assert makespan([(2.0, 5)], 2) == 6.0


@pytest.fixture
def study_file(small_store, tmp_path):
    content = study(
        study="small",
        dataset=str(small_store),
        architectures={"mpnn": {"sizes": ["3k"], "learning_rate": 0.01}},
        data="seen",
        compute=[2e8, 4e8],
        seeds=[0],
        optimization={"batch_size": 8, "validations": 2},
        evaluation={"splits": ["val", "test"], "max_samples": 16, "symmetry_samples": 0},
    )
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_planned_flops_are_those_that_runs_record(study_file, tmp_path, capsys):
    out = tmp_path / "out"
    main(["plan", str(study_file), "--workers", "2", "--price", "36"])
    printed = capsys.readouterr().out
    assert "time is predicted from a few steps and one evaluation batch of every network, timed just now" in printed
    hours, cost = re.search(r"\((.*) hours of one worker\).*, cost (.*) at 36 an hour", printed).groups()
    assert float(cost) == pytest.approx(36 * float(hours), rel=0.01)
    assert float(hours) > 0

    main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    table = read_results(out / "results.parquet").to_pandas().drop_duplicates("run").set_index("run")
    grid = make_plan(load_study(study_file))
    for cell, spec in grid.specs():
        assert table.flops[spec.run] == grid.work(cell).flops == cell_flops(grid, cell)
        assert table.samples_seen[spec.run] == cell.steps * 8
    assert table.flops.sort_values().to_numpy() == pytest.approx([2e8, 4e8], rel=0.05)
    assert set(table.data) < {96, *(8 * n for n in range(1, 12))}

    capsys.readouterr()
    main(["status", str(out)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[:3]]
    assert rows == [["entry", "size", "steps", "ok"], *(["mpnn", "3k", str(cell.steps), "1"] for cell in grid.cells)]
    for words in ([str(study_file), "--out", str(out)], [str(out)]):
        main(["plan", *words])
        assert f"time is predicted from means over 2 finished runs in {out}\n" in capsys.readouterr().out
    found = costs(grid.model_copy(update={"code_version": "a later one"}), out)
    assert found.work == pytest.approx(table.seconds.sum())
    main(["plan", str(study_file), "--flops-per-second", "1e6", "--workers", "1"])
    assert f"; {round(table.flops.sum() / 1e6 / 60)} min of work" in capsys.readouterr().out


def test_planned_flops_of_baselines_are_those_that_runs_record(series_store, tmp_path):
    content = study(
        dataset=str(series_store),
        architectures={"seasonal_naive": {"sizes": ["0"]}, "patch_encoder": {"sizes": ["1k"], "learning_rate": 0.01}},
        task={"context": 64, "horizon": 16},
        data=[3, 8, 16],
        seeds=[0],
        optimization={"steps": 4, "batch_size": 4},
    )
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(content))
    main(["run", str(path), "--out", str(out), "--engine", "inline"])
    table = read_results(out / "results.parquet").to_pandas().drop_duplicates("run")
    grid = make_plan(load_study(path))
    recorded = table.groupby("architecture").flops.sum()
    for cell in grid.cells:
        assert cell_flops(grid, cell) == recorded[cell.label]


def test_cells_without_finished_runs_are_predicted_from_others(tmp_path):
    carry_out(plan(seeds=[0]), tmp_path)
    wider = plan(seeds=[0], architectures={"linear": {"sizes": ["2", "4", "8"], "learning_rate": 0.1}})
    found = costs(wider, tmp_path)
    assert "4 finished runs" in found.origin
    assert "; 1 of 3 rows, of which none is, from others by FLOPs" in found.origin
    assert found.seconds[Cell("linear", "8")] > 0
    assert found.work == pytest.approx(sum(found.seconds.values()) * 2)
    assert costs(wider, flops_per_second=1e3).work == sum(found.flops.values()) / 1e3
