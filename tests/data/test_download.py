"""Downloads from a local server that can break off, answer wrongly, forget its files or be gone."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.card import Card, RemoteFile
from scisci.data.download import checksum, extract, fetch
from scisci.data.library import dataset_folder, open_dataset, read_card
from scisci.sources.registry import source

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files` from memory and keeps what it was asked; `cuts` are the bytes after which answers break off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/data.bin": CONTENT}
        self.requests: list[str | None] = []
        self.cuts: list[int] = []
        self.ranges, self.status = True, 200

    def url(self, name: str = "data.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    """GET with ranges."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.requests.append(asked)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0  # type: ignore[index]
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else self.server.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def remote(server: Server, name: str = "data.bin", **options: Any) -> RemoteFile:
    sha256 = f"sha256:{hashlib.sha256(server.files.get(f'/{name}', b'')).hexdigest()}"
    return RemoteFile(**{"url": server.url(name), "checksum": sha256, **options})


def silent(done: int, total: int | None) -> None:
    """No bar."""


def test_file_arrives_whole_and_its_progress_is_told(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = fetch(remote(server), tmp_path / "new" / "cache", lambda *progress: told.append(progress))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]


def test_cut_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    assert fetch(remote(server), tmp_path, silent).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]


def test_download_goes_on_in_a_later_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0]
    with pytest.raises(UserError, match="run the command again to go on"):
        fetch(remote(server), tmp_path, silent)
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin.part"]
    assert fetch(remote(server), tmp_path, silent).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=100000-"
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = [100_000], False
    assert fetch(remote(server), tmp_path, silent).read_bytes() == CONTENT


def test_whole_part_is_used_though_nothing_is_left_to_send(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path, silent).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_cached_file_needs_no_network(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(remote(server), tmp_path, silent)
    assert len(server.requests) == 1


def test_wrong_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    wanted = remote(server, checksum="md5:" + "0" * 32)
    with pytest.raises(UserError, match=f"sent another file than expected .*{hashlib.md5(CONTENT).hexdigest()}"):
        fetch(wanted, tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_in_the_cache_is_refused(server: Server, tmp_path: Path) -> None:
    path = fetch(remote(server), tmp_path, silent)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="remove it to download it again"):
        fetch(remote(server), tmp_path, silent)


def test_file_without_a_checksum_has_to_stay_what_it_is(server: Server, tmp_path: Path) -> None:
    unchecked = remote(server, checksum=None)
    path = fetch(unchecked, tmp_path, silent)
    recorded = (tmp_path / "data.bin.sha256").read_text().strip()
    assert recorded == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    path.unlink()
    assert fetch(unchecked, tmp_path, silent).read_bytes() == CONTENT
    path.unlink()
    server.files["/data.bin"] = CONTENT[::-1]
    with pytest.raises(UserError, match="sent another file than expected"):
        fetch(unchecked, tmp_path, silent)


def test_half_of_an_unchecked_file_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"older version")
    assert fetch(remote(server, checksum=None), tmp_path, silent).read_bytes() == CONTENT
    assert server.requests == [None]


@pytest.mark.parametrize(("name", "status", "reason"), [("gone", 200, "404"), ("data.bin", 202, "202 instead")])
def test_other_answers_than_the_file_are_told(
    server: Server, tmp_path: Path, name: str, status: int, reason: str
) -> None:
    server.status = status
    with pytest.raises(UserError, match=rf"cannot download {server.url(name)} \(the server answers {reason}") as caught:
        fetch(remote(server, name), tmp_path, silent)
    assert f"put it at {tmp_path / name}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_network_it_is_one_sentence(tmp_path: Path) -> None:
    with Server() as gone:
        wanted = remote(gone)
    with pytest.raises(UserError, match="Connection refused") as caught:
        fetch(wanted, tmp_path, silent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"what is up, doc?", CONTENT], ids=["empty", "short", "long"])
def test_checksums_are_those_of_the_tools(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for algorithm, command in (("sha256", ["sha256sum"]), ("md5", ["md5sum"]), ("git", ["git", "hash-object"])):
        told = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
        assert checksum(path, algorithm) == f"{algorithm}:{told}"


def archives(folder: Path) -> Iterator[Path]:
    """The same three members in every kind of archive."""
    members = {"./set/a.txt": b"A", "./set/b.txt": b"B", "./set/../../escape.txt": b"E"}
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        path = folder / f"members.{mode[2:] or 'plain'}.tar"
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        yield path
    with zipfile.ZipFile(folder / "members.zip", "w") as packed:
        for name, content in members.items():
            packed.writestr(name.removeprefix("./"), content)
    yield folder / "members.zip"


def test_members_come_out_of_every_archive_and_stay_in_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "cache"
    inside.mkdir()
    for archive in archives(inside):
        found = extract(archive, ["set/b.txt", "set/../../escape.txt"])
        assert [path.read_bytes() for path in found.values()] == [b"B", b"E"]
        assert all(path.is_relative_to(inside) and ".." not in path.parts for path in found.values())
        assert found["set/b.txt"].name == "b.txt"
        with pytest.raises(UserError, match=r"has no member set/c\.txt"):
            extract(archive, ["set/a.txt", "set/c.txt"])
    assert list(tmp_path.iterdir()) == [inside]


def test_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        archive.write_bytes(archive.read_bytes()[:60])
        with pytest.raises(UserError, match="not a readable archive"):
            extract(archive, ["set/a.txt"])


def waters(seed: int, count: int) -> bytes:
    """An extended XYZ file of distorted water molecules."""
    rng, frames = np.random.default_rng(seed), []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=seed + 0.001 * k, forces=rng.normal(size=(3, 3)))
        frames.append(atoms)
    text = io.StringIO()
    write(text, frames, format="extxyz")
    return text.getvalue().encode()


@pytest.fixture
def library(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library with one data set, `waters`: a training file that is divided, and a hot one in a tar archive."""
    packed = io.BytesIO()
    hot = waters(2, 7)
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("all/hot.xyz")
        entry.size = len(hot)
        tar.addfile(entry, io.BytesIO(hot))
    server.files |= {"/train.xyz": waters(1, 20), "/hot.tgz": packed.getvalue()}
    files = [
        remote(server, "train.xyz", part="cold").model_dump(exclude_none=True),
        remote(server, "hot.tgz", member="all/hot.xyz", split="ood_hot").model_dump(exclude_none=True),
    ]
    card = {
        "schema_version": 1,
        "title": "Water",
        "domain": "atoms",
        "source": "here",
        "citation": ["Nobody (2020)"],
        "licence": "CC0-1.0",
        "units": {},
        "method": "none",
        "download": {"format": "extxyz", "files": files, "division": {"train": 0.8, "val": 0.1, "test": 0.1}},
        "splits": {
            "train": {"shift": "none: cold"},
            "val": {"shift": "none: cold"},
            "test": {"shift": "none: cold"},
            "ood_hot": {"shift": "temperature: hot", "severity": 600.0, "samples": 7},
        },
        "caveats": [],
    }
    folder = tmp_path / "datasets" / "waters"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setenv("SCISCI_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("SCISCI_CACHE", str(tmp_path / "cache"))
    return folder


def test_downloaded_data_set_is_found_by_its_name_with_its_published_splits(
    library: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="get it with 'scisci data download waters'"):
        open_dataset("waters")
    main(["download", "waters"])
    said = capsys.readouterr().out
    assert "licence: CC0-1.0" in said
    assert "Nobody (2020)" in said
    store = open_dataset("waters")
    assert {name: split.size for name, split in store.splits.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
        "ood_hot": 7,
    }
    hot = store.take(store.split("ood_hot").indices())
    assert sorted(hot.samples["energy"]) == pytest.approx([2 + 0.001 * k for k in range(7)])
    assert store.take(store.split("train").indices()).samples["energy"].max() < 1.1
    assert (store.split("ood_hot").severity, store.split("ood_hot").shift) == (600.0, "temperature: hot")
    main(["verify", "waters"])
    card = (library / "card.yaml").read_text()
    (library / "card.yaml").write_text(card.replace("samples: 7", "samples: 8"))
    with pytest.raises(UserError, match="splits: the card says"):
        main(["verify", "waters"])
    (library / "card.yaml").write_text(card)
    with pytest.raises(UserError, match="exists already"):
        main(["download", "waters"])
    server.files.clear()
    asked = len(server.requests)
    main(["download", "waters", "--out", str(library.parent / "again.h5")])
    assert open_dataset(library.parent / "again.h5").fingerprint == store.fingerprint
    assert len(server.requests) == asked


def test_data_set_that_is_not_here_is_listed_as_such(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("│ waters"))
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["waters", "no", "atoms", "", "1", "Water"]
    main(["info", "waters"])
    shown = capsys.readouterr().out
    assert "not here; get it with 'scisci data download waters'" in shown
    assert "ood_hot, 7 samples: temperature: hot" in shown
    assert "Nobody (2020)" in shown


@pytest.mark.parametrize("name", ["3bpa", "ani1x", "mptrj", "rmd17", "spice"])
def test_shipped_cards_download_a_known_format_with_published_checksums(name: str) -> None:
    card = read_card(name)
    assert card.download is not None
    assert source(card.download.format).domain == card.domain
    assert all(file.checksum for file in card.download.files)
    assert {"train", "val", "test"} <= set(card.splits)


def served_card(server: Server, name: str, library: Path, contents: dict[str, bytes]) -> None:
    """The shipped card of `name` in the library, its files as `contents` has them on the local server."""
    card = yaml.safe_load((dataset_folder(name) / "card.yaml").read_text())
    for file in card["download"]["files"]:
        path = RemoteFile(**file).filename
        server.files[f"/{path}"] = contents[path]
        digest = hashlib.sha256(contents[path]).hexdigest()
        file.update(url=server.url(path), checksum=f"sha256:{digest}")
    folder = library.parent / name
    folder.mkdir()
    (folder / "card.yaml").write_text(yaml.safe_dump(card))


def test_rmd17_as_its_card_has_it(library: Path, server: Server, tmp_path: Path) -> None:
    """An archive in the layout of rMD17, of ten molecules with few frames."""
    packed, rng = io.BytesIO(), np.random.default_rng(0)
    parts = [file.part for file in read_card("rmd17").download.files]  # type: ignore[union-attr]
    with tarfile.open(fileobj=packed, mode="w:bz2") as tar:
        for k, part in enumerate(parts):
            content = io.BytesIO()
            water = molecule("H2O")
            arrays = {
                "nuclear_charges": water.numbers,
                "coords": water.positions + rng.normal(scale=0.05, size=(100, 3, 3)),
                "energies": np.full(100, float(k)),
                "forces": rng.normal(size=(100, 3, 3)),
            }
            np.savez_compressed(content, **arrays)
            entry = tarfile.TarInfo(f"rmd17/npz_data/rmd17_{part}.npz")
            entry.size = len(content.getvalue())
            tar.addfile(entry, io.BytesIO(content.getvalue()))
    served_card(server, "rmd17", library, {"rmd17.tar.bz2": packed.getvalue()})
    main(["download", "rmd17"])
    store = open_dataset("rmd17")
    assert sorted(store.groups) == sorted(f"rmd17_{part}" for part in parts)
    assert {name: split.size for name, split in store.splits.items()} == {"train": 10, "val": 10, "test": 100}
    main(["verify", "rmd17"])
    main(["download", "rmd17", "--part", "ethanol", "--out", str(tmp_path / "ethanol.h5")])
    assert open_dataset(tmp_path / "ethanol.h5").groups == ["rmd17_ethanol"]
    assert server.requests == [None]


def test_3bpa_as_its_card_has_it(library: Path, server: Server) -> None:
    """Files in the layout of 3BPA, with energies that say which file they are of."""
    layout = (
        'Lattice="50.0 0.0 0.0 0.0 50.0 0.0 0.0 0.0 50.0" Properties=species:S:1:pos:R:3:forces:R:3 energy={}'
        ' dihedrals="_JSON [209.44, 80.54, 59.96]" pbc="F F F"'
    )
    atoms = "O 0.0 0.0 0.0 0.1 0.2 0.3\nH 0.0 0.0 1.0 -0.1 -0.2 -0.3\n"
    counts = {"train_300K": 500, "test_300K": 3, "test_600K": 4, "test_1200K": 5, "test_dih": 6}
    contents = {
        f"{name}.xyz": f"2\n{layout.format(-float(count))}\n{atoms}".encode() * count for name, count in counts.items()
    }
    served_card(server, "3bpa", library, contents)
    main(["download", "3bpa"])
    main(["verify", "3bpa"])
    store = open_dataset("3bpa")
    files = {"train": 500, "val": 500, "test": 3, "ood_600K": 4, "ood_1200K": 5, "ood_dihedral": 6}
    for name, count in files.items():
        assert set(store.take(store.split(name).indices()).samples["energy"]) == {-float(count)}
    assert store.split("ood_1200K").severity == 1200
    assert store.split("ood_dihedral").severity is None


def test_part_of_a_data_set_goes_where_it_is_told(library: Path, tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match="say with --out"):
        main(["download", "waters", "--part", "cold"])
    with pytest.raises(UserError, match="unknown part of waters 'cool'; did you mean 'cold'"):
        main(["download", "waters", "--part", "cool", "--out", str(tmp_path / "cold.h5")])
    main(["download", "waters", "--part", "cold", "--out", str(tmp_path / "cold.h5"), "--cache", str(tmp_path / "raw")])
    assert set(open_dataset(tmp_path / "cold.h5").splits) == {"train", "val", "test"}
    assert [path.name for path in (tmp_path / "raw" / "waters" / "files").iterdir()] == ["train.xyz"]


def test_failed_download_leaves_no_store(library: Path, server: Server, tmp_path: Path) -> None:
    del server.files["/hot.tgz"]
    with pytest.raises(UserError, match="404"):
        main(["download", "waters"])
    assert [path.name for path in (tmp_path / "cache" / "waters").rglob("*.*")] == ["train.xyz"]


def test_simulated_data_set_says_how_it_is_made() -> None:
    with pytest.raises(UserError, match="is not downloaded; make it with 'scisci data generate charged-nbody"):
        main(["download", "charged-nbody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["download"]["files"][0].update(url="file:///etc/passwd"), "url"),
        (lambda card: card["download"]["files"][0].update(checksum="sha256:12"), "checksum"),
        (lambda card: card["download"]["files"][0].pop("checksum"), "checksum"),
        (lambda card: card["download"]["files"][0].update(name="../up"), "name"),
        (lambda card: card["download"]["files"][0].update(name="hot.tgz"), "two files are called 'hot.tgz'"),
        (lambda card: card["splits"].pop("ood_hot"), "split 'ood_hot' is not both downloaded and described"),
        (lambda card: card["splits"].update(ood_cold={"shift": "x"}), "split 'ood_cold' is not both"),
    ],
)
def test_card_with_a_fault_is_refused(library: Path, change: Any, message: str) -> None:
    card = yaml.safe_load((library / "card.yaml").read_text())
    change(card)
    (library / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(UserError, match=message):
        Card.read(library / "card.yaml")
