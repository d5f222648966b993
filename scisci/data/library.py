"""Finding data sets by name: the ones that ship with scisci, and any store by its path."""

from __future__ import annotations

import os
from pathlib import Path

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.card import Card
from scisci.data.store import Store

PACKAGE = Path(__file__).resolve().parents[1]


def library_folders() -> list[Path]:
    """Folders searched for data sets: `SCISCI_DATASETS` (colon-separated), then the shipped ones."""
    own = [Path(p) for p in os.environ.get("SCISCI_DATASETS", "").split(os.pathsep) if p]
    return [p for p in (*own, PACKAGE / "datasets", PACKAGE.parent / "datasets") if p.is_dir()]


def datasets() -> dict[str, Path]:
    """Folder of each data set found, by name; earlier library folders win."""
    found: dict[str, Path] = {}
    for folder in library_folders():
        for card in sorted(folder.glob("*/card.yaml")):
            found.setdefault(card.parent.name, card.parent)
    return found


def dataset_folder(name: str) -> Path:
    """The folder of the data set `name`; an unknown name is a `UserError` with the closest ones."""
    known = datasets()
    if name not in known:
        raise unknown_name("data set", name, known)
    return known[name]


def open_dataset(name_or_path: str | Path) -> Store:
    """Open a data set by name, or a store by path (anything that exists, ends in .h5 or contains a slash)."""
    path = Path(name_or_path)
    if path.suffix == ".h5" or len(path.parts) > 1 or path.is_dir():
        return Store(path)
    folder = dataset_folder(str(name_or_path))
    store = next((p for p in (folder / "data.h5", folder / "data") if p.exists()), None)
    if store is None:
        raise UserError(f"data set {name_or_path!r} is described but not here; {read_card(path.name).how_to_get}")
    return Store(store)


def read_card(name: str) -> Card:
    """The card of a data set."""
    return Card.read(dataset_folder(name) / "card.yaml")
