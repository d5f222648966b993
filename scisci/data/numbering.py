"""Numbers for names, such as those of groups, in a few bytes each."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

RECENT = 2**15


class Numbering:
    """Numbers names 0, 1, ... in the order in which they first come.

    Keeps 64-bit digests instead of names, of which two among a million collide with a probability of 3e-8: sorted
    arrays, 12 bytes a name, and a dictionary of the latest, merged into them now and then.
    """

    def __init__(self) -> None:
        self._digests = np.empty(0, dtype=np.uint64)
        self._numbers = np.empty(0, dtype=np.int32)
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._digests) + len(self._recent)

    def __call__(self, name: str) -> int:
        """The number of a name; a new one gets the next."""
        digest = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        if (number := self._recent.get(digest)) is not None:
            return number
        at = int(np.searchsorted(self._digests, np.uint64(digest)))
        if at < len(self._digests) and int(self._digests[at]) == digest:
            return int(self._numbers[at])
        number = self._recent[digest] = len(self)
        # Rarer as they get longer, so that merging does not grow with the square of the names.
        if len(self._recent) >= max(RECENT, len(self._digests) // 32):
            self._merge()
        return number

    def _merge(self) -> None:
        digests = np.fromiter(self._recent.keys(), dtype=np.uint64)
        numbers = np.fromiter(self._recent.values(), dtype=np.int32)
        order = np.argsort(digests)
        digests, numbers = digests[order], numbers[order]
        places = np.searchsorted(self._digests, digests)
        self._digests = np.insert(self._digests, places, digests)
        self._numbers = np.insert(self._numbers, places, numbers)
        self._recent.clear()
