"""How attacks are registered, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..tiny import edit

FILE = Path("predictions/small-0/test.h5")
Attack = Callable[[Path], Any]
REFUSED: dict[str, tuple[Attack, str]] = {}
FLAGGED: dict[str, tuple[Attack, str]] = {}


def refused(sentence: str) -> Callable[[Attack], Attack]:
    """Register an attack on a valid submission's folder, with words of the sentence that it must be refused with."""

    def register(attack: Attack) -> Attack:
        REFUSED[attack.__name__] = (attack, sentence)
        return attack

    return register


def flagged(sentence: str) -> Callable[[Attack], Attack]:
    """The same for what is not refused but pointed out."""

    def register(attack: Attack) -> Attack:
        FLAGGED[attack.__name__] = (attack, sentence)
        return attack

    return register


def canary(folder: Path) -> Path:
    """A file outside of the submission that nothing may touch."""
    return folder.parent.parent / "outside" / "canary.h5"


def change(folder: Path, name: str, alter: Callable[[np.ndarray], np.ndarray], path: Path = FILE, **how: Any) -> None:
    """Replace an array of a predictions file by what `alter` makes of it."""
    with h5py.File(folder / path, "r+") as file:
        values = alter(file[name][...])
        del file[name]
        file.create_dataset(name, data=values, **how)


def attribute(folder: Path, name: str, value: Any) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file.attrs[name] = value


def first_run(folder: Path, **values: Any) -> None:
    edit(folder, lambda content: content["runs"][0].update(values))


def rename(folder: Path, name: str) -> Path:
    return folder.rename(folder.with_name(name))
