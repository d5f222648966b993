from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.library import open_dataset
from scisci.data.store import Store


def test_known_name_wins_over_a_folder_of_that_name(
    shipped: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xtb-molecules").mkdir()
    assert open_dataset("xtb-molecules").fingerprint == shipped.fingerprint
    main(["info", "xtb-molecules"])
    assert shipped.fingerprint in capsys.readouterr().out


@pytest.mark.parametrize("name", ["small.hdf5", "small", "./small.h5"])
def test_existing_file_is_a_store_whatever_it_is_called(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copy(small_store, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    store = open_dataset(name)
    monkeypatch.chdir("/")
    assert store.path == tmp_path / name
    assert len(Store(store.path)) == 192


@pytest.mark.parametrize("name", ["small.hdf5", "small.h5", "folder/small"])
def test_missing_path_is_named_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no store at {tmp_path / name}"):
        open_dataset(name)


def test_misspelt_name_gets_the_closest() -> None:
    with pytest.raises(
        UserError, match="unknown data set 'xtb-molecule'; did you mean 'xtb-crystals' or 'xtb-molecules'"
    ):
        open_dataset("xtb-molecule")
