"""Signed summaries: what they say of sealed scores, and that no character of them can be altered."""

from __future__ import annotations

import json
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.leaderboard.signing import make_key, sign, summary, verify

from .scores import results, scored

CONTENT = {"schema_version": 1, "values": [0.1, 12.345678901234567, 1e-300, 123456789012], "words": "Å ≤ 1"}
PLAIN = scored("a", {("s", 8, 0): {"test": 1.0}})
NEEDS_OPENSSL = pytest.mark.skipif(which("openssl") is None, reason="by the openssl command")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    private = tmp_path_factory.mktemp("keys") / "board"
    return private, make_key(private)


@pytest.fixture(scope="module")
def signed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "summary.json"
    sign(CONTENT, keys[0], path)
    return path


BY = {"inputs": "1" * 64, "labels": "2" * 64}


def test_what_was_signed_is_read_back(keys: tuple[Path, Path], signed: Path) -> None:
    assert verify(signed, keys[1]) == CONTENT


@NEEDS_OPENSSL
def test_the_signature_is_the_one_that_the_standard_says(keys: tuple[Path, Path], signed: Path) -> None:
    """By OpenSSL's own hand, over bytes put together here."""
    file = json.loads(signed.read_text())
    words = '"schema_version":1,"values":[0.1,12.345678901234567,1e-300,123456789012],"words":"\\u00c5 \\u2264 1"'
    message = b"scisci sealed summary 1\n" + f"{{{words}}}".encode()
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(file["public_key"])).verify(
        bytes.fromhex(file["signature"]), message
    )
    folder = signed.parent
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(bytes.fromhex(file["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin", "-in", "message"]
    found = subprocess.run([*command, "-sigfile", "signature"], cwd=folder, capture_output=True, text=True)
    assert "Verified Successfully" in found.stdout


def test_the_same_summary_gives_the_same_bytes(keys: tuple[Path, Path], signed: Path, tmp_path: Path) -> None:
    sign(dict(reversed(CONTENT.items())), keys[0], tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == signed.read_bytes()


def test_no_character_can_be_altered(keys: tuple[Path, Path], signed: Path, tmp_path: Path) -> None:
    content, path = signed.read_bytes(), tmp_path / "altered.json"
    for at in range(len(content)):
        for other in (b"" if content[at : at + 1] == b" " else b" ", bytes([content[at] ^ 1]), b"0", b"F"):
            if other != content[at : at + 1]:
                path.write_bytes(content[:at] + other + content[at + 1 :])
                with pytest.raises(UserError, match=r"altered|not a signed summary|with another key"):
                    verify(path, keys[1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1,", "0.10,"),
        ("0.1,", "0.1000000000000000055511151231257827,"),
        ("12.345678901234567", "12.3456789012345670"),
        ("12.345678901234567", "12.3456789012345671"),
        ("123456789012\n", "123456789012.0\n"),
        ('"words"', '"words": "other",\n  "words"'),
        ("1e-300", "1E-300"),
        ("1e-300", "NaN"),
        ("{\n", '{"more": 1,\n'),
        ("}\n", "}\n\n"),
    ],
)
def test_other_spellings_of_the_same_summary_are_refused(
    keys: tuple[Path, Path], signed: Path, tmp_path: Path, old: str, new: str
) -> None:
    text = signed.read_text()
    assert old in text
    (tmp_path / "altered.json").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match="it was altered; get it again"):
        verify(tmp_path / "altered.json", keys[1])


def test_other_spellings_of_the_signature_are_refused(keys: tuple[Path, Path], signed: Path, tmp_path: Path) -> None:
    signature = json.loads(signed.read_text())["signature"]
    for other in (signature.upper(), f"{signature[:2]} {signature[2:]}", signature[2:], "", "zz"):
        (tmp_path / "altered.json").write_text(signed.read_text().replace(signature, other))
        with pytest.raises(UserError, match="it was altered"):
            verify(tmp_path / "altered.json", keys[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(content=st.dictionaries(st.text(), JSON, max_size=4), other=st.dictionaries(st.text(), JSON, max_size=4))
def test_a_signature_is_for_its_summary_alone(
    keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], other: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "summary.json"
    sign(content, keys[0], path)
    assert json.dumps(verify(path, keys[1]), sort_keys=True) == json.dumps(content, sort_keys=True)
    signature = json.loads(path.read_text())["signature"]
    sign(other, keys[0], path)
    if json.dumps(other, sort_keys=True) != json.dumps(content, sort_keys=True):
        path.write_text(path.read_text().replace(json.loads(path.read_text())["signature"], signature))
        with pytest.raises(UserError, match="it was altered"):
            verify(path, keys[1])


def test_another_key_is_told_from_an_alteration(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was signed with another key than"):
        verify(signed, make_key(tmp_path / "other"))


def test_keys_are_kept_to_their_owner_and_never_replaced(keys: tuple[Path, Path], tmp_path: Path) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    before = keys[0].read_bytes()
    with pytest.raises(UserError, match="exists already"):
        make_key(keys[0])
    assert keys[0].read_bytes() == before
    open_key = tmp_path / "open"
    open_key.write_bytes(before)
    open_key.chmod(0o644)
    with pytest.raises(UserError, match=f"others can read the private key {open_key}; .*'chmod 600 {open_key}'"):
        sign(CONTENT, open_key, tmp_path / "summary.json")
    assert not (tmp_path / "summary.json").exists()


def test_what_is_no_key_or_no_summary_is_said(keys: tuple[Path, Path], signed: Path, tmp_path: Path) -> None:
    private, public = keys
    form = PrivateFormat.PKCS8
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "rsa").write_bytes(other.private_bytes(Encoding.PEM, form, NoEncryption()))
    (tmp_path / "text").write_text("key")
    for path in (tmp_path / "rsa", tmp_path / "text", public):
        with pytest.raises(UserError, match="is not a private key for Ed25519"):
            sign(CONTENT, path, tmp_path / "out")
    for path in (tmp_path / "text", private):
        with pytest.raises(UserError, match="is not a public key for Ed25519"):
            verify(signed, path)
    with pytest.raises(UserError, match="cannot read the key"):
        verify(signed, tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot read .*none: No such file"):
        verify(tmp_path / "none", public)
    for text in ("", "[]", '"summary"', "{}", "[" * 100_000, "\udcff"):
        (tmp_path / "no.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match="is not a signed summary"):
            verify(tmp_path / "no.json", public)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match="is too large"):
        verify(tmp_path / "large.json", public)


def test_a_summary_says_all_of_the_sealed_scores() -> None:
    error = {"test": (2.0, 0.5), "ood_speed1": (0.25, 0.25)}
    table = results("b", {("s", 8, 0): error, ("m", 8, 0): {}}, "charged-nbody", "particles", "position_mse")
    one = scored("b", {("s", 8, 0): {"test": 1.0}}).with_sealed(table, "charged-nbody", BY)
    alone = results("a", {("s", 8, 1): {"test": 3.0}}, "charged-nbody")
    first = replace(one, slug="a", sealed_table=None).with_sealed(alone, "charged-nbody", BY)
    found = summary([one, scored("c", {("s", 8, 0): {"test": 1.0}}), first])
    assert [one["slug"] for one in found["submissions"]] == ["a", "b"]
    assert found["submissions"][1] | {"scores": []} == {
        "slug": "b",
        "digest": one.digest,
        "scoring_version": one.scoring_version,
        "sets": {"charged-nbody": BY},
        "scores": [],
    }
    ood, test = found["submissions"][1]["scores"]
    run = {"run": "b/charged-nbody-position_mse-s-8-0", "dataset": "charged-nbody", "metric": "position_mse", "n": 100}
    half = 1.959963984540054
    assert test == run | {"split": "test", "value": 2.0, "low": 2.0 - half / 2, "high": 2.0 + half / 2}
    # An error cannot be below zero.
    assert ood == run | {"split": "ood_speed1", "value": 0.25, "low": 0.0, "high": 0.25 + half / 4}
    (alone,) = found["submissions"][0]["scores"]
    assert (alone["low"], alone["high"]) == (None, None)


def test_whole_groups_make_the_interval_where_there_are_some() -> None:
    table = results("a", {("s", 8, 0): {"test": (2.0, 0.1)}}, "charged-nbody", se_groups=0.5)
    (score,) = summary([PLAIN.with_sealed(table, "charged-nbody", BY)])["submissions"][0]["scores"]
    assert score["high"] - score["low"] == pytest.approx(2 * 1.96 * 0.5, rel=1e-4)


def test_each_data_set_keeps_its_latest_sealed_scores() -> None:
    earlier, later = (results("a", {("s", 8, 0): {"test": value}}, "charged-nbody") for value in (1.0, 2.0))
    other = results("a", {("s", 8, 0): {"test": 3.0}}, "chaos")
    one = PLAIN.with_sealed(earlier, "charged-nbody", BY).with_sealed(other, "chaos", BY | {"labels": "3" * 64})
    again = one.with_sealed(later, "charged-nbody", BY | {"labels": "4" * 64})
    (found,) = summary([again])["submissions"]
    assert {score["dataset"]: score["value"] for score in found["scores"]} == {"charged-nbody": 2.0, "chaos": 3.0}
    assert {name: by["labels"][0] for name, by in found["sets"].items()} == {"charged-nbody": "4", "chaos": "3"}


def test_without_sealed_scores_there_is_no_summary() -> None:
    with pytest.raises(UserError, match="no submission has sealed scores"):
        summary([PLAIN])


def test_without_cryptography_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(UserError, match=r"pip install 'scisci\[leaderboard\]'"):
        make_key(tmp_path / "key")
    assert not list(tmp_path.iterdir())


@NEEDS_OPENSSL
def test_keys_of_others_are_read(signed: Path, tmp_path: Path) -> None:
    """As `openssl genpkey -algorithm ed25519` writes them."""
    path = tmp_path / "key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    path.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", str(path), "-pubout", "-out", f"{path}.pub"], check=True)
    sign(CONTENT, path, tmp_path / "summary.json")
    assert verify(tmp_path / "summary.json", tmp_path / "key.pub") == CONTENT
