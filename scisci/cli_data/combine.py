"""`scisci data combine`: several data sets in one store, for one model of all of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    from scisci.data.store import Store


def add(commands: Any) -> None:
    """Add the sub-command."""
    sub = commands.add_parser(
        "combine",
        help="several data sets in one store, to train one model on all of them",
        description="Put data sets of atoms, whose labels may be of different levels of theory, into one store. Each"
        " keeps reference energies of its own; splits of the same name are joined, every set spread evenly over them.",
    )
    sub.add_argument(
        "datasets",
        nargs="+",
        metavar="[NAME=]DATASET",
        help="name of a data set, or path of a store; it is called as the file or folder unless told",
    )
    sub.add_argument("--out", type=Path, required=True, metavar="STORE", help="a new folder of shards")
    sub.add_argument(
        "--without", nargs="+", default=[], metavar="FIELD", help="labels or metadata to leave out, such as stress"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the order in which data sets alternate (default: 0)")
    sub.set_defaults(action=combine)


def combine(args: argparse.Namespace) -> None:
    """Write the combined store, and show it."""
    from scisci.cli_data.describe import info
    from scisci.data.combine import combine
    from scisci.data.library import open_dataset

    stores: dict[str, Store] = {}
    for entry in args.datasets:
        name, sign, path = entry.rpartition("=")
        store = open_dataset(path)
        if (name := name if sign else store.name) in stores:
            raise UserError(f"two data sets are called {name!r}; tell them apart with NAME=DATASET")
        stores[name] = store
    combine(stores, args.out, args.without, args.seed)
    info(str(args.out))
