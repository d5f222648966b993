"""Which task is for which data: one per domain."""

from __future__ import annotations

from typing import Any

from scisci.contracts.errors import UserError, unknown_name
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.base import Task
from scisci.tasks.clouds import CloudTask
from scisci.tasks.particles import ParticleTask
from scisci.tasks.series import SeriesTask
from scisci.tasks.trees import TreeTask

TASKS: tuple[type[Task], ...] = (AtomisticTask, ParticleTask, CloudTask, TreeTask, SeriesTask)


def task_for(domain: str) -> type[Any]:
    """The task that trains on samples of `domain`; a domain without one is a `UserError`."""
    for task in TASKS:
        if task.domain == domain:
            return task
    known = ", ".join(task.domain for task in TASKS)
    raise UserError(f"there is no training on samples of the domain {domain!r} yet; choose data of: {known}")


def task_named(name: str) -> type[Any]:
    """The task that `model.json` calls `name`."""
    for task in TASKS:
        if task.name == name:
            return task
    raise unknown_name("task", name, [task.name for task in TASKS])
