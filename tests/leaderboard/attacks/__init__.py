"""Submissions made to do harm or to cheat, by what they attack, each with words of the sentence that it must meet."""

from . import contents, descriptions, files, growth, layout, suspicious  # noqa: F401  (each registers its attacks)
from .registry import FLAGGED, REFUSED

__all__ = ["FLAGGED", "REFUSED"]
