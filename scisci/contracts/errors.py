"""Errors a person can cause, and the help they get."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

# Of an `OSError`, where a disk or a quota is full.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """Something the user can put right: one sentence that says what is wrong and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that does not exist, with the closest names that do.

    `kind` is what the name stands for, as it reads in a sentence ("architecture", "data set").
    """
    known = sorted(known)
    close = get_close_matches(name.lower(), [k.lower() for k in known], n=2, cutoff=0.5)
    likely = [k for k in known if k.lower() in close or k.lower().startswith(name.lower())]
    if likely:
        hint = f"did you mean {' or '.join(repr(k) for k in likely)}?"
    else:
        hint = f"choose one of: {', '.join(known) or 'none available'}"
    return UserError(f"unknown {kind} {name!r}; {hint}")
