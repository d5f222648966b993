"""`scisci data list`, `info` and `verify`."""

from __future__ import annotations

from typing import Any

from scisci.contracts.errors import UserError


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

    table = Table("name", "here", "domain", "samples", "splits", "title")
    for name in datasets():
        card = read_card(name)
        samples = f"{card.samples:,}" if card.samples else ""
        here = "yes" if store_path(name) else "no"
        table.add_row(name, here, card.domain, samples, ", ".join(card.splits), card.title)
    Console().print(table)


def info(name: str) -> None:
    """Print what a store holds, and what its card says of it if it has one."""
    from rich.console import Console
    from rich.table import Table

    from scisci.data.library import datasets, open_dataset, read_card

    store, console = open_dataset(name), Console()
    console.print(
        f"[bold]{name}[/bold]: {len(store):,} samples of domain {store.domain!r} in {len(store.groups)} groups"
    )
    console.print(f"fields: {', '.join(store.fields)}\nfingerprint: {store.fingerprint}")
    table = Table("split", "samples", "severity", "shift", "groups apart from train")
    for split in store.splits.values():
        severity = "" if split.severity is None else f"{split.severity:g}"
        table.add_row(split.name, f"{split.size:,}", severity, split.shift, "yes" if split.disjoint else "")
    console.print(table)
    if name in datasets():
        card = read_card(name)
        console.print(
            f"[bold]{card.title}[/bold]\nmethod: {card.method}\nsource: {card.source}\nlicence: {card.licence}"
        )
        for title, lines in (("cite", card.citation), ("mind", card.caveats)):
            console.print(f"{title}:", *(f"  - {line}" for line in lines), sep="\n")


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
