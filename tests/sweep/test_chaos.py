"""A sweep that is disturbed at random comes to what an undisturbed one comes to."""

from __future__ import annotations

import random

import pytest

from .chaos import chaos, same_tables
from .grid import carry_out, faulty, plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_find_tests")]


def test_killed_workers_and_drivers_do_not_show_in_the_table(tmp_path, journal):
    brake = tmp_path / "brake"
    brake.touch()
    grid = plan(architectures={"slow": faulty(brake=str(brake)) | {"sizes": ["2", "3"]}}, seeds=[0, 1, 2])
    folders = [tmp_path / "disturbed", tmp_path / "undisturbed"]
    chaos(grid, folders[0], ["worker", "driver", "worker"], tmp_path / "log", random.Random(0))
    brake.unlink()
    assert journal("start").total() <= len(grid) + 4, "more was done twice than the four dead workers were at"
    carry_out(grid, folders[1])
    assert same_tables(folders)
