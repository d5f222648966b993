"""Fetching files: kept in a cache, resumed where a connection broke, and checked before anything reads them."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from scisci import __version__
from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path, creating, write_text
from scisci.data.card import RemoteFile

CHUNK = 2**20
TIMEOUT = 60.0
NOTHING_LEFT = 416
# Bytes that have arrived, and how many there are in all, where the server says it.
Progress = Callable[[int, int | None], None]


def checksum(path: Path, algorithm: str) -> str:
    """`algorithm`:hexadecimal digest of a file, by sha256, md5 or git (the SHA-1 of a git blob)."""
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def fetch(remote: RemoteFile, folder: Path, progress: Progress) -> Path:
    """The file in the cache `folder`, downloaded unless it is there; the network is not touched if it is.

    A file without a published checksum has its sha256 recorded beside it the first time, and has to keep it.
    `UserError` where there is no network, or the content is not what it has to be; what had arrived of a file when the
    connection broke is kept, and the next call goes on from there.
    """
    path = folder / remote.filename
    record, part = path.with_name(f"{path.name}.sha256"), path.with_name(f"{path.name}.part")
    recorded = record.read_text(encoding="utf-8").strip() if record.exists() else None
    expected = remote.checksum or recorded
    if path.exists():
        if (actual := checksum(path, _algorithm(expected))) != (expected or actual):
            raise UserError(f"{path} is {actual}, not {expected} as it should be; remove it to download it again")
    else:
        with creating(part):
            folder.mkdir(parents=True, exist_ok=True)
            if expected is None:
                # Without a checksum nothing would notice that two halves are of different versions.
                part.unlink(missing_ok=True)
        _receive(remote.url, part, path, progress)
        if (actual := checksum(part, _algorithm(expected))) != (expected or actual):
            part.unlink()
            raise UserError(
                f"{remote.url} sent another file than expected ({actual} instead of {expected}), which was removed; try"
                " again, and if it comes again, the file there was changed"
            )
        part.replace(path)
    if expected is None:
        write_text(record, actual + "\n")
    return path


def _algorithm(expected: str | None) -> str:
    return "sha256" if expected is None else expected.partition(":")[0]


def _receive(url: str, part: Path, path: Path, progress: Progress) -> None:
    """Write what `url` sends to `part`, going on from what is there, over as many connections as bring something."""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part, before, progress)
            return
        except HTTPError as error:
            error.close()
            if error.code == NOTHING_LEFT and before:
                return
            raise _no_file(url, f"the server answers {error.code} {error.reason}", path) from error
        except (OSError, HTTPException) as error:
            if part.exists() and part.stat().st_size > before:
                continue
            raise _no_file(url, str(getattr(error, "reason", error)) or type(error).__name__, path) from error


def _no_file(url: str, reason: str, path: Path) -> UserError:
    return UserError(
        f"cannot download {url} ({reason}); run the command again to go on, or get the file another way and put it at"
        f" {path}"
    )


def _append(url: str, part: Path, start: int, progress: Progress) -> None:
    headers = {"User-Agent": f"scisci/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.status not in (200, 206):
            raise HTTPException(f"the server answers {response.status} instead of the file")
        if response.status == 200:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise HTTPException("the server goes on from another place than asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                start += len(chunk)
                progress(start, total)
        if total is not None and start < total:
            raise IncompleteRead(b"", total - start)


def extract(archive: Path, members: Iterable[str]) -> dict[str, Path]:
    """Unpack the named members of a tar or zip archive into a folder beside it, in one pass; those there are kept.

    Returns member → file. `UserError` for a member that the archive lacks, or an archive that cannot be read.
    """
    files = {member: _beside(archive, member) for member in members}
    missing = {member: path for member, path in files.items() if not path.exists()}
    if not missing:
        return files
    try:
        for member, content in _contents(archive, set(missing)):
            with atomic_path(missing.pop(member)) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
            if not missing:
                return files
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"{archive} is not a readable archive ({error}); remove it and download it again") from error
    raise UserError(f"{archive} has no member {min(missing)}; correct the card of the data set")


def _beside(archive: Path, member: str) -> Path:
    # Without its "..", no member leads out of the folder.
    inside = [part for part in PurePosixPath(member).parts if part not in ("/", "..")]
    return archive.with_name(f"{archive.name}.members").joinpath(*inside)


def _contents(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for name in wanted.intersection(packed.namelist()):
                with packed.open(name) as content:
                    yield name, content
        return
    # As a stream: a compressed archive is unpacked once, whatever the order of its members.
    with tarfile.open(archive, "r|*") as stream:
        for entry in stream:
            name = entry.name.removeprefix("./")
            if name in wanted and (unpacked := stream.extractfile(entry)) is not None:
                yield name, unpacked
