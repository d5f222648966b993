"""`scisci data list`, `info` and `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from scisci.data.store import Store


def add(commands: Any) -> None:
    """Add the three sub-commands."""
    sub = commands.add_parser("list", help="all data sets found")
    sub.set_defaults(action=lambda args: list_datasets())
    actions = (("info", "what a data set holds", info), ("verify", "check content, splits and card", verify))
    for name, text, action in actions:
        sub = commands.add_parser(name, help=text)
        sub.add_argument("name", metavar="NAME", help="name of a data set, or path of a store")
        sub.set_defaults(action=lambda args, action=action: action(args.name))


def list_datasets() -> None:
    """Print every data set found, with what its card says."""
    from rich.console import Console
    from rich.table import Table

    from scisci.data.library import datasets, read_card, store_path

    table = Table("name", "here", "domain", "samples", "shifts", "title")
    for name in datasets():
        card = read_card(name)
        samples = f"{card.samples:,}" if card.samples else ""
        shifts = sum(split.startswith("ood_") for split in card.splits)
        table.add_row(name, "yes" if store_path(name) else "no", card.domain, samples, str(shifts or ""), card.title)
    Console().print(table)


def info(name: str) -> None:
    """Print what a store holds, and what its card says of it if it has one; of a set that is not here, its card."""
    from rich.console import Console

    from scisci.data.library import datasets, open_dataset, read_card, store_path

    console, card = Console(), read_card(name) if name in datasets() else None
    if card is None or store_path(name):
        _show_store(name, open_dataset(name), console)
    else:
        console.print(f"[bold]{name}[/bold]: described but not here; {card.how_to_get(name)}")
        for split, about in card.splits.items():
            samples = f", {about.samples:,} samples" if about.samples else ""
            console.print(f"  {split}{samples}: {about.shift}", highlight=False)
    if card is not None:
        console.print(
            f"[bold]{card.title}[/bold]\nmethod: {card.method}\nsource: {card.source}\nlicence: {card.licence}"
        )
        for title, lines in (("cite", card.citation), ("mind", card.caveats)):
            console.print(f"{title}:", *(f"  - {line}" for line in lines), sep="\n")


def _show_store(name: str, store: Store, console: Console) -> None:
    from rich.table import Table

    console.print(
        f"[bold]{name}[/bold]: {len(store):,} samples of domain {store.domain!r} in {len(store.groups)} groups"
    )
    if store.datasets:
        console.print(f"data sets: {', '.join(store.datasets)}", highlight=False)
    console.print(f"fields: {', '.join(store.fields)}\nfingerprint: {store.fingerprint}")
    table = Table("split", "samples", "severity", "shift", "groups apart from train")
    for split in store.splits.values():
        severity = "" if split.severity is None else f"{split.severity:g}"
        table.add_row(split.name, f"{split.size:,}", severity, split.shift, "yes" if split.disjoint else "")
    console.print(table)


def verify(name: str) -> None:
    """Check content, splits and card of a data set; `UserError` says what is wrong."""
    from scisci.data.library import datasets, open_dataset, read_card
    from scisci.data.splits import leaks

    store = open_dataset(name)
    store.verify()
    wrong = leaks(store) + (read_card(name).differences(store) if name in datasets() else [])
    if wrong:
        raise UserError(f"{name} is not as it should be: {'; '.join(wrong)}; get it again or correct its card")
    print(f"{name}: {len(store):,} samples, content as written, splits without leaks, fingerprint {store.fingerprint}")
