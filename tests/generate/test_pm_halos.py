"""The data set of halos: which cosmologies and phases its boxes have, and what one box yields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scisci.data.samples import problem
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import pm_halos
from scisci.generate.halos import CRITICAL_DENSITY
from scisci.generate.pm_halos import CORNER, FEWEST, HIGHEST, LOWEST, POPULATIONS, SEED, Job, cosmologies, jobs, run_all

SMALL = replace(pm_halos.STANDARD, side=64.0, particles=24, mesh=48, steps=4)


def test_the_prior_is_filled_but_for_its_corner() -> None:
    drawn, corner = cosmologies(400, seed=1), cosmologies(60, seed=1, corner=True)
    assert drawn.shape == (400, 2)
    assert (drawn >= LOWEST).all()
    assert (drawn <= HIGHEST).all()
    assert not (drawn > CORNER).all(axis=1).any()
    assert (corner > CORNER).all()
    # Every cell of a 5 x 5 grid outside the corner has its share, which independent draws would miss now and then.
    counts = np.histogram2d(*((drawn - LOWEST) / (HIGHEST - LOWEST)).T, bins=5, range=[[0, 1]] * 2)[0]
    assert counts[:3, :3].min() >= 14


def test_no_two_boxes_share_their_phases_and_more_boxes_begin_with_the_same() -> None:
    all_jobs = {name: jobs(name, population, SEED) for name, population in POPULATIONS.items()}
    seeds = [job.seed for work in all_jobs.values() for job in work]
    assert len(set(seeds)) == len(seeds) == sum(p.boxes for p in POPULATIONS.values())
    fewer = jobs("train", replace(POPULATIONS["train"], boxes=7), SEED)
    assert fewer == all_jobs["train"][:7]
    assert jobs("train", POPULATIONS["train"], SEED + 1)[0] != fewer[0]


def test_shifts_change_what_they_say_and_nothing_else() -> None:
    standard = POPULATIONS["train"]
    finer, later = POPULATIONS["ood_resolution"], POPULATIONS["ood_redshift"]
    lightest = [p.fewest / p.box.particles**3 for p in (standard, finer)]
    assert lightest[1] == pytest.approx(lightest[0], rel=0.01)
    assert replace(finer.box, particles=standard.box.particles) == standard.box
    assert replace(later.box, end=1.0) == standard.box
    assert POPULATIONS["ood_density"].fewest == POPULATIONS["ood_density"].severity * FEWEST


def test_a_box_is_a_sound_cloud_with_the_heaviest_halo_first() -> None:
    sample = Job(0.3, 0.9, 5, SMALL, 20).run()
    assert problem(sample) is None
    assert sample.masses is not None
    assert len(sample.masses) > 10
    assert (np.diff(sample.masses) <= 0).all()
    particle = 0.3 * CRITICAL_DENSITY * (64 / 24) ** 3
    assert sample.masses[-1] >= particle * 20 * (1 - 20**-0.6)
    assert sample.masses.sum() < particle * 24**3


def test_results_come_in_the_order_of_the_jobs() -> None:
    work = [Job(omega_m, 0.8, 3, SMALL, 20) for omega_m in (0.5, 0.2)]
    for job, sample in zip(work, run_all(work), strict=True):
        np.testing.assert_array_equal(sample.positions, job.run().positions)
        assert sample.omega_m == job.omega_m


def test_a_store_has_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: replace(p, box=replace(SMALL, end=p.box.end), fewest=5) for name, p in POPULATIONS.items()}
    monkeypatch.setattr(pm_halos, "POPULATIONS", small)
    monkeypatch.setattr(pm_halos, "run_all", lambda work: (job.run() for job in work))
    pm_halos.generate(tmp_path / "halos.h5", boxes=0.005)
    store = Store(tmp_path / "halos.h5")
    assert set(store.splits) == set(POPULATIONS)
    assert leaks(store) == []
    assert set(store.fields) == {"positions", "velocities", "masses", "box", "omega_m", "sigma_8"}
    assert store.metadata("redshift")[store.split("ood_redshift").indices()].tolist() == [1, 1]
