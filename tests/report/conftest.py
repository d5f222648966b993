from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from scisci.contracts.results import write_results
from scisci.report.fits import parse
from scisci.report.study import Study, assemble, read_table

from . import entries, world


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic study's results table on disk, with its fits beside it."""
    path = tmp_path_factory.mktemp("study") / "results.parquet"
    write_results(path, world.table_rows())
    records = entries.entries(read_table(path))
    path.with_name("fits.json").write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def frame(table: Path) -> pd.DataFrame:
    return read_table(table)


@pytest.fixture(scope="session")
def study(table: Path, frame: pd.DataFrame) -> Study:
    records = json.loads(table.with_name("fits.json").read_text(encoding="utf-8"))
    return assemble(frame, parse(records, "fits"))


@pytest.fixture(scope="session")
def unfitted(frame: pd.DataFrame) -> Study:
    return assemble(frame, [])
