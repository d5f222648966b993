"""Signed summaries of scores on sealed test sets: published without the labels, and not to be altered unnoticed.

Ed25519 (RFC 8032) over `CONTEXT` and the summary's canonical JSON: keys sorted, no white space, ASCII, every number the
shortest that reads back as itself. A file is verified as text, so that no character of it can differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating, write_text
from scisci.contracts.metrics import METRICS
from scisci.leaderboard.scores import Scored
from scisci.report.wording import NORMAL_95

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEMA_VERSION = 1
CONTEXT = b"scisci sealed summary 1\n"
LARGEST = 2**26


def make_key(path: Path) -> Path:
    """Write a new private key to `path`, for its owner alone, and the public key beside it; returns the latter's path.

    Both are PEM. `UserError` where one is there already.
    """
    ed25519, serialization = _cryptography()
    public = path.with_name(f"{path.name}.pub")
    for one in (path, public):
        if one.exists():
            raise UserError(f"{one} exists already; choose another name, for what it signed needs it")
    key = ed25519.Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    with creating(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    write_text(public, key.public_key().public_bytes(pem, form).decode())
    return public


def summary(scored: Iterable[Scored]) -> dict[str, Any]:
    """All that may be published of scores on sealed test sets, and by which inputs and labels they were made.

    Per submission its digest and the scoring's version, and of every run, split and metric the value, its 95 % interval
    over samples (over whole groups where there are some) and the number of samples. `UserError` without sealed scores.
    """
    sealed = [one for one in scored if one.sealed_table is not None]
    if not sealed:
        raise UserError("no submission has sealed scores; score one with 'scisci leaderboard score --labels'")
    return {
        "schema_version": SCHEMA_VERSION,
        "submissions": sorted((_summarised(one) for one in sealed), key=lambda one: one["slug"]),
    }


def _summarised(scored: Scored) -> dict[str, Any]:
    assert scored.sealed_table is not None
    keys = ("run", "dataset", "split", "metric", "value", "n")
    scores = []
    for row in scored.sealed_table.to_pylist():
        if row["metric"] is not None:
            scores.append({key: row[key] for key in keys} | _interval(row))
    return {
        "slug": scored.slug,
        "digest": scored.digest,
        "scoring_version": scored.scoring_version,
        "sets": {name: dict(by) for name, by in scored.sealed_by.items()},
        "scores": sorted(scores, key=lambda one: [one[key] for key in keys[:4]]),
    }


def _interval(row: dict[str, Any]) -> dict[str, float | None]:
    """The 95 % interval, which ends at zero where the metric does; None without a standard error."""
    error = row["se"] if row["se_groups"] is None else row["se_groups"]
    if error is None:
        return {"low": None, "high": None}
    low, high = (row["value"] + sign * NORMAL_95 * error for sign in (-1, 1))
    return {"low": max(0.0, low) if METRICS[row["metric"]].natural_zero else low, "high": high}


def sign(content: dict[str, Any], key: Path, out: Path) -> None:
    """Write a summary with its signature to `out`; `UserError` for a key that is none or that others can read."""
    private = _private(key)
    signed = {
        "summary": content,
        "signature": private.sign(_canonical(content)).hex(),
        "public_key": private.public_key().public_bytes_raw().hex(),
    }
    write_text(out, _text(signed))


def verify(path: Path, key: Path) -> dict[str, Any]:
    """The summary of a signed file, if the owner of the public `key` signed it as it is; `UserError` otherwise."""
    from cryptography.exceptions import InvalidSignature

    public = _public(key)
    altered = UserError(f"{path} is not what the owner of {key} signed: it was altered; get it again")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is too large for a signed summary; give another file")
        text = path.read_text(encoding="utf-8")
        signed = json.loads(text)
        content, signature, signer = (signed[name] for name in ("summary", "signature", "public_key"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a signed summary") from error
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a signed summary; give one that 'scisci leaderboard sign' wrote") from error
    if signer != public.public_bytes_raw().hex():
        raise UserError(f"{path} was signed with another key than {key}; get the key of its owner")
    try:
        # Two texts can stand for one number, or for one signature; only that which `sign` writes is accepted.
        found = bytes.fromhex(signature)
        if _text({"summary": content, "signature": found.hex(), "public_key": signer}) != text:
            raise altered
        public.verify(found, _canonical(content))
    except (InvalidSignature, ValueError, TypeError) as error:
        raise altered from error
    return dict(content)


def _canonical(content: dict[str, Any]) -> bytes:
    return CONTEXT + json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _text(signed: dict[str, Any]) -> str:
    return json.dumps(signed, sort_keys=True, indent=1, allow_nan=False) + "\n"


def _private(path: Path) -> Ed25519PrivateKey:
    ed25519, serialization = _cryptography()
    key = _loaded(path, lambda content: serialization.load_pem_private_key(content, password=None))
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UserError(f"{path} is not a private key for Ed25519; make one with 'scisci leaderboard key'")
    if path.stat().st_mode & 0o077:
        raise UserError(f"others can read the private key {path}; keep it to yourself with 'chmod 600 {path}'")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    ed25519, serialization = _cryptography()
    key = _loaded(path, serialization.load_pem_public_key)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UserError(f"{path} is not a public key for Ed25519; give the .pub file of the one who signed")
    return key


def _loaded(path: Path, load: Any) -> Any:
    """A key, or None for what is none."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _cryptography() -> tuple[Any, Any]:
    """The modules `ed25519` and `serialization` of cryptography."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError("signatures need cryptography; install it with pip install 'scisci[leaderboard]'") from error
    return ed25519, serialization
