"""What the command line says, before and beside what jsonargparse makes of it."""

from __future__ import annotations

import inspect
import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from scisci.contracts.errors import UserError
from scisci.data.module import StoreDataModule
from scisci.models.registry import ENTRY_POINTS


def allow_imports() -> None:
    """A config names classes to import; only scisci, Lightning, torch and installed plug-ins are imported for it."""
    plugins = {point.module.split(".")[0] for point in entry_points(group=ENTRY_POINTS)}
    allowed = ["scisci", "lightning", "torch", *sorted(plugins)]
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=allowed)


def take_option(name: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `name VALUE` or `name=VALUE` out of the arguments: the value, if it is there, and the rest."""
    for at, argument in enumerate(arguments):
        if argument == name:
            if at + 1 == len(arguments):
                raise UserError(f"{name} needs a value; see 'scisci fit --help'")
            return arguments[at + 1], arguments[:at] + arguments[at + 2 :]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}="), arguments[:at] + arguments[at + 1 :]
    return None, arguments


def dataset_named(arguments: list[str]) -> str:
    """The data set that options and configs name, the last one counting, else the default.

    Read ahead of all parsing, since the data's domain decides the task and with it what options there are.
    """
    found = inspect.signature(StoreDataModule.__init__).parameters["dataset"].default
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("--data.dataset", "--data", "--config", "-c"):
            value = value if equals else next(words, "")
            found = _dataset_in(option, value) or found
    return str(found)


def _dataset_in(option: str, value: str) -> str | None:
    if option == "--data.dataset":
        return value
    try:
        # A config is given as a file or as its content; what is neither, the parser will refuse.
        section: Any = yaml.safe_load(Path(value).read_text(encoding="utf-8") if os.path.isfile(value) else value)
    except yaml.YAMLError as error:
        raise UserError(f"{value} is not YAML: {' '.join(str(error).split())}") from error
    if option != "--data" and isinstance(section, dict):
        section = section.get("data")
    return section.get("dataset") if isinstance(section, dict) else None


def one_sentence(message: str, command: str) -> str:
    """What jsonargparse says of a bad option or config, as one sentence with the remedy."""
    if denied := re.search(r"Importing '([^']+)' is not allowed", message):
        return (
            f"the config names {denied[1]!r}, but only scisci, lightning, torch and installed plug-ins are imported for"
            " a config; remove it"
        )
    if lacking := re.search(r"class_path '\S+\.(\w+)':\s+the following arguments are required: (save_dir)", message):
        return f"{lacking[1]} lacks {lacking[2]}, where in the run directory it is to write; give '.'"
    return f"{' '.join(message.split()).rstrip('.')}; 'scisci {command} --help' lists what is accepted"
