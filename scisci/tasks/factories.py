"""What other packages bring: objects that a "module:factory" makes, and options for it from the command line."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError

GLUONTS = "time series from and to GluonTS need the package gluonts; install it with pip install 'scisci[series]'"


def made_by(factory: str, options: dict[str, Any], flag: str) -> Any:
    """Import "module:factory", from the working folder too, and call it with `options`, which were given by `flag`."""
    module, _, name = factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "gluonts":
            raise UserError(GLUONTS) from error
        raise UserError(f"cannot load {factory}: {error}; give module:factory as Python would import it") from error
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{factory} cannot be called: {' '.join(str(error).split())}; correct {flag}") from error


def option(text: str, flag: str) -> tuple[str, Any]:
    """A name and its value, of JSON or else a string, from "KEY=VALUE"."""
    key, _, value = text.partition("=")
    if not (key and value):
        raise UserError(f"{flag} {text} is not understood; write it as KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
