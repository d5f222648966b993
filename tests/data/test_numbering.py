from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.data import numbering
from scisci.data.numbering import Numbering


@given(names=st.lists(st.text(max_size=3), max_size=200), recent=st.integers(1, 50))
def test_names_are_numbered_as_a_dictionary_would(names: list[str], recent: int) -> None:
    number, expected = Numbering(), dict[str, int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbering, "RECENT", recent)
        for name in names:
            assert number(name) == expected.setdefault(name, len(expected))
            assert len(number) == len(expected)


def test_a_name_takes_a_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "RECENT", 500)
    number = Numbering()
    tracemalloc.start()
    try:
        for k in range(20_000):
            number(f"molecule {k}")
        assert tracemalloc.get_traced_memory()[0] < 20 * len(number)
    finally:
        tracemalloc.stop()
    assert number("molecule 7") == 7
