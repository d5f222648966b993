"""The laws that ship, each with its formula and source; importing this registers them."""

from scisci.scaling.laws import broken, curves, farseer, kaplan, powers

__all__ = ["broken", "curves", "farseer", "kaplan", "powers"]
