from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.leaderboard.analysis import analyse
from scisci.leaderboard.scores import Scored, read_scores, write_scores

from . import scores

ERRORS = {
    ("s", 64, 0): {"val": 9.0, "test": (9.5, 0.3), "ood_hot": 12.0},
    ("m", 64, 0): {"val": 6.0, "test": (6.25, 0.2), "ood_hot": 10.0},
    ("l", 64, 0): {"val": 5.0, "test": (4.0 / 3.0, 0.1), "ood_hot": 9.0},
    ("l", 64, 1): {},
}


@pytest.fixture
def one() -> Scored:
    plain = scores.scored(
        "mpnn-2", ERRORS, sealed={("l", 64, 0): {"test": 4.1}}, reported={"symmetry_rotation_forces": 0.1}
    )
    return replace(plain, analysis=tuple(analyse(plain.table)), flags=("possible contamination",), status="reproduced")


def test_what_was_written_is_read_again(one: Scored, tmp_path: Path) -> None:
    write_scores(tmp_path, one)
    (again,) = read_scores(tmp_path)
    for field in fields(Scored):
        mine, theirs = getattr(one, field.name), getattr(again, field.name)
        assert mine.equals(theirs) if field.name.endswith("table") else mine == theirs, field.name
    assert len(one.analysis) == 6


def test_the_same_scores_give_the_same_bytes(one: Scored, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_scores(tmp_path / folder, one)
    shuffled = dict(reversed(one.trivial.items()))
    records = tuple(dict(reversed(record.items())) for record in one.analysis)
    write_scores(tmp_path / "c", replace(one, trivial=shuffled, analysis=records))
    names = ["mpnn-2.json", "mpnn-2.parquet", "mpnn-2.sealed.parquet"]
    for folder in ("a", "b", "c"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
        assert all((tmp_path / folder / name).read_bytes() == (tmp_path / "a" / name).read_bytes() for name in names)


def test_scores_come_in_the_order_of_their_slugs(one: Scored, tmp_path: Path) -> None:
    for slug in ("b", "a-1", "a"):
        write_scores(tmp_path, replace(one, slug=slug))
    assert [each.slug for each in read_scores(tmp_path)] == ["a", "a-1", "b"]


def test_a_sealed_table_goes_where_scores_without_one_come(one: Scored, tmp_path: Path) -> None:
    write_scores(tmp_path, one)
    write_scores(tmp_path, replace(one, sealed_table=None))
    assert next(read_scores(tmp_path)).sealed_table is None
    assert not (tmp_path / "mpnn-2.sealed.parquet").exists()


def damage_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def test_damaged_scores_are_named(one: Scored, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            list(read_scores(tmp_path))
        write_scores(tmp_path, one)

    json_file, table, sealed = (tmp_path / f"mpnn-2{suffix}" for suffix in (".json", ".parquet", ".sealed.parquet"))
    write_scores(tmp_path, one)
    json_file.write_text(json_file.read_text()[:-200])
    refused("mpnn-2.json is not JSON")
    json_file.write_bytes(b"\xff\xfe")
    refused("mpnn-2.json is not JSON")
    json_file.write_text("[]")
    refused("scores of version None, not 1")
    damage_json(json_file, schema_version=2)
    refused("scores of version 2, not 1")
    damage_json(json_file, rank=1)
    refused("mpnn-2.json: rank: Extra inputs")
    damage_json(json_file, submission={"name": "x"})
    refused("mpnn-2.json: submission.family: Field required")
    table.write_bytes(table.read_bytes()[:-1])
    refused("mpnn-2.parquet is not the table that was scored")
    shutil.copy(table, sealed)
    refused("mpnn-2.sealed.parquet is not the table that was scored")
    table.unlink()
    refused("cannot read .*mpnn-2.parquet: No such file")
    sealed.unlink()
    refused("cannot read .*mpnn-2.sealed.parquet")
    json_file.rename(tmp_path / "other.json")
    refused("other.json holds the scores of 'mpnn-2'")


def test_no_scores_at_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no scores at .*none"):
        list(read_scores(tmp_path / "none"))
    assert list(read_scores(tmp_path)) == []
