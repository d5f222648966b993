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


def cache_folder() -> Path:
    """Where downloads are kept: `SCISCI_CACHE`, or else the user's cache folder of the system."""
    import pooch

    return Path(os.environ.get("SCISCI_CACHE") or pooch.os_cache("scisci"))


def store_path(name: str) -> Path | None:
    """Where the store of the data set `name` is: beside its card or among the downloads; `None` if it is not here."""
    folders = (dataset_folder(name), cache_folder() / name)
    return next((p for folder in folders for p in (folder / "data.h5", folder / "data") if p.exists()), None)


def dataset_folder(name: str) -> Path:
    """The folder of the data set `name`; an unknown name is a `UserError` with the closest ones."""
    known = datasets()
    if name not in known:
        raise unknown_name("data set", name, known)
    return known[name]


def open_dataset(name_or_path: str | Path) -> Store:
    """Open a data set by name, or a store by path; a known name wins over a file or folder of that name."""
    name, path, known = str(name_or_path), Path(name_or_path), datasets()
    if name not in known:
        if path.exists():
            return Store(path)
        if path.suffix or len(path.parts) > 1:
            raise UserError(f"no store at {path.absolute()}; give the path of a store, or a name of 'scisci data list'")
        raise unknown_name("data set", name, known)
    store = store_path(name)
    if store is None:
        raise UserError(f"data set {name!r} is described but not here; {read_card(name).how_to_get(name)}")
    return Store(store)


def domain_of(name_or_path: str | Path) -> str:
    """The domain of a data set's samples; of a described one, from its card, whether its store is here or not."""
    name = str(name_or_path)
    return read_card(name).domain if name in datasets() else open_dataset(name).domain


def read_card(name: str) -> Card:
    """The card of a data set."""
    return Card.read(dataset_folder(name) / "card.yaml")
