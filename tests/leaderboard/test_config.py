from __future__ import annotations

from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import metric
from scisci.data.card import Card
from scisci.leaderboard.config import HEADLINES, Config, headlines, load_config

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "board.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_configuration_is_of_data_sets_that_ship() -> None:
    config = load_config(ROOT / "leaderboard" / "board.yaml")
    assert "xtb-molecules" in config.datasets
    for name, of_dataset in config.datasets.items():
        domain = Card.read(ROOT / "datasets" / name / "card.yaml").domain
        assert headlines(domain, of_dataset.metric)
        assert of_dataset.title
        assert of_dataset.compute
        submitted = ROOT / "leaderboard" / "submissions" / str(of_dataset.reference)
        assert of_dataset.reference is None or submitted.is_dir()


def test_every_key_is_read(tmp_path: Path) -> None:
    text = "datasets: {halos: {title: Halos, metric: omega_m_fvu, reference: mpnn-2, compute: 1.0e+12}}"
    halos = load_config(write(tmp_path, text)).of("halos")
    assert (halos.title, halos.metric, halos.reference, halos.compute) == ("Halos", "omega_m_fvu", "mpnn-2", 1e12)


def test_a_data_set_that_is_not_listed_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()
    assert Config().of("any").reference is None
    assert Config().of("any").compute is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: {a: {refrence: b}}", r"key in datasets.a 'refrence'; did you mean 'reference'"),
        ("dataset: {}", r"unknown key in the file 'dataset'; did you mean 'datasets'"),
        ("datasets: {a: {compute: -1}}", r"datasets.a.compute: .*greater than 0"),
        ("datasets: {a: {compute: .inf}}", r"datasets.a.compute: .*finite"),
        ("datasets: {a: {reference: '../b'}}", r"datasets.a.reference: .*pattern"),
        ("schema_version: 2", r"schema_version"),
        ("[1, 2]", r"valid dictionary"),
        ("a: [", r"is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", r"is not YAML"),
    ],
)
def test_a_faulty_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, text))


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_ranked_errors_have_zero_as_the_floor_of_a_perfect_model() -> None:
    for names in HEADLINES.values():
        for name in names:
            assert metric(name).direction == "lower"
            assert metric(name).natural_zero


def test_only_ranked_errors_of_the_domain_can_be_chosen() -> None:
    assert headlines("cloud", "omega_m_fvu") == ("omega_m_fvu",)
    with pytest.raises(UserError, match="ranked metric of the domain 'cloud' 'omega_fvu'; did you mean 'omega_m_fvu'"):
        headlines("cloud", "omega_fvu")
    with pytest.raises(UserError, match="unknown domain 'clouds'; did you mean 'cloud'"):
        headlines("clouds")
