"""Downloads against a server that does everything wrong once, kills at any byte, and archives that mean harm."""

import hashlib
import io
import os
import pickle
import random
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from kit import download
from kit.__main__ import build_parser, main
from kit.download import BadArchive, download_cifar10, download_cpen455, unpack_archive
from utils import UsageError, data

TOP = "CPEN455HW-2024W2-0123abc"


class Handler(BaseHTTPRequestHandler):
    """Serves `server.body` and honours Range, but for the faults that wait in `server.faults`, one a request."""

    def do_GET(self):
        server = self.server
        fault, number = server.faults.pop(0) if server.faults and self.path.startswith("/zip") else ("", 0)
        asked = self.headers.get("Range")
        server.log.append((self.path, asked))
        body = server.body
        if self.path.startswith("/redirect/"):
            return self.answer(int(self.path[-3:]), b"moved", Location="/zip")
        if self.path in server.moved:
            return self.answer(302, b"moved", Location=server.moved[self.path])
        if fault == "status":
            return self.answer(number, b"no")
        if fault == "body":
            return self.answer(200, number)
        if fault == "garbage":
            return self.wfile.write(b"\x00\xff\x1b[2J this is not HTTP\r\n\r\n")
        if fault in ("chunked", "unsized"):
            headers = {"Transfer-Encoding": "chunked"} if fault == "chunked" else {}
            self.answer(200, b"", length=None, **headers)
            pieces = [body[i : i + 1000] for i in range(0, len(body), 1000)]
            for piece in pieces[: number or None]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if fault == "chunked" else piece)
            if fault == "chunked" and not number:
                self.wfile.write(b"0\r\n\r\n")
            return None
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault != "no range" else 0
        if start >= len(body):
            return self.answer(416, b"", **{"Content-Range": f"bytes */{len(body)}"})
        claimed = 0 if fault == "misfit" else start
        part = {"Content-Range": f"bytes {claimed}-{len(body) - 1}/{len(body)}"} if start else {}
        send = body[start:]
        if fault in ("cut", "stall", "reset"):
            send = send[:number]
        self.answer(206 if start else 200, send, length=len(body) - start, **part)
        if fault == "stall":
            self.wfile.flush()
            server.released.wait()
        if fault == "reset":  # closing with this option sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        return None

    def answer(self, status, body, length=0, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.faults, self.log, self.moved = b"", [], [], {}
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/zip"

    def handle_error(self, *_args):  # clients that were killed or have read enough
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_manifest(files: dict[str, bytes], path: Path) -> dict[str, str]:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    path.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    return digests


def zipped(files: dict[str, bytes], *more: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    """Laid out as GitHub lays out its archives, folders and all, with files that are nobody's business."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.comment = b"0123abc"
        for folder in ("", "data/", "data/train/"):
            file.writestr(f"{TOP}/{folder}", b"")
        file.writestr(f"{TOP}/model.py", b"raise SystemExit")
        file.writestr(f"{TOP}/data/unlisted.txt", b"?")
        for name, content in files.items():
            file.writestr(f"{TOP}/data/{name}", content)
        file.writestr(f"{TOP}/other/data/train.csv", b"another one")
        for info, content in more:
            file.writestr(info, content)
    return archive.getvalue()


@pytest.fixture
def files(course_data, tmp_path, monkeypatch) -> dict[str, bytes]:
    """What the data set's folder must hold in the end."""
    files = contents(course_data)
    write_manifest(files, tmp_path / "manifest")
    monkeypatch.setattr(download, "MANIFEST", tmp_path / "manifest")
    return files


@pytest.fixture
def server(files, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.body = zipped(files)
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "data" / "cpen455"


def refused(target, url, timeout=60.0) -> str:
    """The one line of a failed download, after which no half folder is there."""
    with pytest.raises(UsageError) as caught:
        download_cpen455(target, url, timeout)
    assert str(caught.value).isprintable()
    assert not target.exists() and not list(target.parent.glob(".*.tmp"))
    return str(caught.value)


def assert_arrived(target, files, beside=()):
    assert contents(target) == files
    assert sorted(p.name for p in target.parent.iterdir()) == sorted([target.name, *beside])


def test_the_committed_manifest():
    """The numbers of pictures are those that data/README.md states."""
    lines = download.MANIFEST.read_text().splitlines()
    names = [re.fullmatch(r"[0-9a-f]{64}  ((?:train|validation|test)(?:\.csv|/\d{7}\.jpg))", line)[1] for line in lines]
    assert len(set(names)) == len(names)
    counts = [sum(name.startswith(f"{split}/") for name in names) for split in data.SPLITS]
    stated = re.search(r"\| (\d+) / (\d+) / (\d+) \(test without", (download.DATA / "README.md").read_text())
    assert counts == [int(number) for number in stated.groups()] and len(names) == sum(counts) + 3


def test_the_command_brings_everything_and_then_has_nothing_to_do(server, files, target, capsys):
    command = ["data", "cpen455", "--root", str(target), "--url", server.url]
    assert main(command) == 0
    assert_arrived(target, files)
    assert "26 files, each checked by its SHA-256" in capsys.readouterr().out and len(server.log) == 1
    modified = target.stat().st_mtime_ns
    assert len(data.load_split("cpen455", "train", target)) == 12
    (target / "mine.csv").write_text("my own file")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "is complete, 26 files: nothing to do" in said
    assert len(server.log) == 1 and (target / "mine.csv").exists() and target.stat().st_mtime_ns >= modified
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(target.parent.stat().st_mode)


def test_the_errors_name_commands_that_can_be_typed(tmp_path, monkeypatch):
    for dataset in ("cpen455", "cifar10"):
        for root in (tmp_path / "it's here", None):
            monkeypatch.setattr(data, "FOLDER", tmp_path / "kit" / "kit" / "data")
            monkeypatch.delenv("CPEN455_ROOT", raising=False)
            with pytest.raises(UsageError) as caught:
                data.load_split(dataset, "train", root)
            typed = shlex.split(re.search("`(.*)`", str(caught.value))[1])
            assert typed[:3] == ["python", "-m", "kit"]
            args = build_parser().parse_args(typed[3:])
            assert (args.command, args.dataset, args.root) == ("data", dataset, str(root) if root else None)


# a connection that breaks


def test_cut_short_it_goes_on_from_there(server, files, target, capsys):
    whole = len(server.body)
    server.faults = [("cut", whole // 2), ("cut", 1000)]
    halfway = whole // 2
    assert refused(target, server.url) == (f"only {halfway} of {whole} bytes came; start again, it goes on from there")
    assert refused(target, server.url).startswith(f"only {halfway + 1000} of {whole} bytes")
    download_cpen455(target, server.url)
    assert [asked for _, asked in server.log] == [None, f"bytes={halfway}-", f"bytes={halfway + 1000}-"]
    assert f"going on after {halfway + 1000} bytes" in capsys.readouterr().out
    assert_arrived(target, files)


@pytest.mark.parametrize(
    "fault,message",
    [
        (("stall", 20000), r"nothing came for 1 s: only 20000 of \d+ bytes came; start again, it goes on"),
        (("reset", 20000), r"Connection reset by peer: only \d+ of \d+ bytes came; start again, it goes on"),
        (("chunked", 20), r"IncompleteRead.*: only 20000 bytes came; start again, it goes on"),
        (("unsized", 20), r"refused: not a whole zip archive .*; nothing was kept: start again"),
        (("garbage", 0), r"cannot reach .*; see to the network and start again"),
        (("status", 404), r"/zip answered 404 Not Found: try again later, or give another address with --url"),
        (("status", 503), r"/zip answered 503 Service Unavailable: try again later"),
        (("status", 204), r"/zip answered 204: try again later"),
        (("status", 302), r"/zip answered 302 Found"),
        (("body", b"<!DOCTYPE html><p>log in"), r"not a whole zip archive .* it begins with b'<!DOCTYPE html>'"),
        (("body", b""), r"not a whole zip archive"),
    ],
)
def test_faults_in_one_line_and_then_the_same_address_heals(server, files, target, fault, message):
    server.faults = [fault]
    said = refused(target, server.url, timeout=1.0 if fault[0] == "stall" else 60.0)
    assert re.search(message, said), said
    download_cpen455(target, server.url)
    assert_arrived(target, files)


@pytest.mark.parametrize("fault", ["chunked", "unsized"])
def test_an_archive_of_unknown_length(server, files, target, fault):
    server.faults = [(fault, 0)]
    download_cpen455(target, server.url)
    assert_arrived(target, files)


@pytest.mark.parametrize("fault,requests", [("no range", 2), ("misfit", 3)])
def test_a_server_that_does_not_go_on_starts_from_zero(server, files, target, fault, requests):
    server.faults = [("cut", 30000), (fault, 0)]
    refused(target, server.url)
    download_cpen455(target, server.url)
    assert len(server.log) == requests
    assert_arrived(target, files)


def test_what_does_not_fit_together_starts_from_zero_once(server, files, target, capsys):
    good, server.body = server.body, zipped(dict(reversed(files.items())))
    server.faults = [("cut", len(good) // 2)]
    refused(target, server.url)
    server.body = good  # the archive changed meanwhile
    download_cpen455(target, server.url)
    assert [asked for _, asked in server.log] == [None, f"bytes={len(good) // 2}-", None]
    assert "once more from the first byte" in capsys.readouterr().out
    assert_arrived(target, files)


def test_more_bytes_than_there_are(server, files, target):
    server.faults = [("cut", len(server.body) - 1)]
    refused(target, server.url)
    server.body = zipped({name: files[name] for name in list(files)[:3]})
    said = refused(target, server.url)  # 416, so all of it again
    assert "of 26 files 23 are missing and 0 wrong" in said, said


def test_a_partial_file_belongs_to_its_address(server, files, target):
    server.faults = [("cut", 30000)]
    refused(target, server.url)
    download_cpen455(target, server.url + "?again")
    assert server.log[1] == ("/zip?again", None)
    assert_arrived(target, files)


def test_wrong_bytes(server, files, target):
    spoilt = files | {"train.csv": b"train/0000001.jpg,0\n", "test/0000020.jpg": b"\xff\xd8\xff"}
    del spoilt["train/0000002.jpg"]
    server.body = zipped(spoilt)
    said = refused(target, server.url)
    assert "is refused: of 26 files 1 are missing and 2 wrong, test/0000020.jpg first; nothing was kept" in said
    assert list(target.parent.iterdir()) == []


def test_nobody_answers(target, files):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        said = refused(target, f"http://127.0.0.1:{taken.getsockname()[1]}/zip")
    assert re.search(r"cannot reach http://127.0.0.1:\d+/zip: Connection refused; see to the network", said)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_with_the_range(server, files, target, status):
    url = server.url.replace("/zip", f"/redirect/{status}")
    server.faults = [("cut", 30000)]
    refused(target, url)
    download_cpen455(target, url)
    assert server.log[-1] == ("/zip", "bytes=30000-")
    assert_arrived(target, files)


def test_redirects_that_lead_nowhere(server, target, tmp_path):
    (tmp_path / "secret").write_bytes(server.body)
    server.moved = {"/loop": "/pool", "/pool": "/loop", "/file": (tmp_path / "secret").as_uri(), "/ftp": "ftp://h/x"}
    base = server.url.removesuffix("/zip")
    assert re.search(r"more than 10 redirects, at last to http", refused(target, base + "/loop"))
    assert len(server.log) < 15
    assert "only http and https are fetched, not file:///" in refused(target, base + "/file")
    assert "only http and https are fetched, not ftp://h/x" in refused(target, base + "/ftp")
    for url in ((tmp_path / "secret").as_uri(), "data:,x", "cpen455.zip", "http://[", "//host/zip", ""):
        assert "only http and https are fetched" in refused(target, url)


@pytest.mark.parametrize("url", ["http://", "http://host:port/zip", "http://127.0.0.1:1/\u00e9\u4e2d", "http://a b/"])
def test_addresses_that_are_none(target, files, url):
    assert "cannot reach" in refused(target, url)


def test_tokens_are_not_shown(server, target):
    server.faults = [("status", 403)]
    said = refused(target, server.url + "?token=sesame")
    server.moved = {"/zip?token=sesame": "ftp://h/?token=sesame"}
    assert "sesame" not in said + refused(target, server.url + "?token=sesame")


def test_an_archive_without_end(server, target, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 50000)
    for fault in [("", 0), ("unsized", 0)]:
        server.faults = [fault]
        assert "larger than 50000 bytes" in refused(target, server.url)
        assert list(target.parent.iterdir()) == []


# archives that mean harm


def member(name: str, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, mode << 16, method
    return info


@pytest.mark.parametrize(
    "info,message",
    [
        (member("../evil"), "leads out"),
        (member(f"{TOP}/data/../../../evil"), "leads out"),
        (member("/tmp/evil"), "leads out"),
        (member("C:/evil"), "leads out"),
        (member(f"{TOP}\\data\\..\\evil"), "leads out"),
        (member(f"{TOP}/data/train", stat.S_IFLNK | 0o777), "is a link or a device"),
        (member(f"{TOP}/data/null", stat.S_IFCHR | 0o666), "is a link or a device"),
        (member(f"{TOP}/data/pipe", stat.S_IFIFO | 0o666), "is a link or a device"),
        (member(f"{TOP}/data/x", method=zipfile.ZIP_BZIP2), "is compressed neither"),
    ],
)
def test_harmful_members(server, files, target, tmp_path, info, message):
    server.body = zipped(files, (info, b"/etc/passwd"))
    before = sorted(tmp_path.rglob("*"))
    said = refused(target, server.url)
    assert f"is refused: its member {info.filename!r} {message}" in said
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [target.parent]


def test_bombs(server, files, target, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 2**20)
    size = 7_654_321
    server.body = zipped(files | {"train.csv": bytes(size)})
    assert len(server.body) < 2**20
    assert "more than 1048576 bytes come out of it" in refused(target, server.url)
    assert server.body.count(struct.pack("<I", size)) == 2
    server.body = server.body.replace(struct.pack("<I", size), struct.pack("<I", 100))  # the headers lie
    assert "not a whole zip archive" in refused(target, server.url)
    assert list(target.parent.iterdir()) == []


def test_property_any_damage_is_seen(tmp_path, files):
    """Bytes changed, cut off, doubled or taken out anywhere: the archive is refused, or gives the right files."""
    few = {name: files[name][:300] for name in ("train.csv", "test/0000019.jpg", "train/0000001.jpg")}
    manifest = write_manifest(few, tmp_path / "few")
    body, refusals = zipped(few), 0
    chance = random.Random(0)
    for _ in range(100):
        damaged = bytearray(body)
        start = chance.randrange(len(body))
        kind = chance.randrange(4)
        if kind == 0:
            damaged[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[start : start + 4] = chance.randbytes(4)
        elif kind == 2:
            del damaged[start : start + chance.choice([1, 50, len(body)])]
        else:
            damaged[start:start] = damaged[start : start + 20]
        (tmp_path / "zip").write_bytes(damaged)
        try:
            unpack_archive(tmp_path / "zip", tmp_path / "out", manifest)
        except BadArchive:
            refusals += 1
        else:
            assert contents(tmp_path / "out") == few
    assert refusals > 50


# what is there already


def spoil(target: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """An incomplete folder with a file of the user's own."""
    old = {"train.csv": files["train.csv"], "train/0000001.jpg": b"half", "notes.txt": b"mine"}
    for name, content in old.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return old


def test_an_incomplete_folder_is_replaced_and_kept_aside(server, files, target, capsys):
    old = spoil(target, files)
    server.faults = [("cut", 30000)]
    with pytest.raises(UsageError):
        download_cpen455(target, server.url)
    assert contents(target) == old
    download_cpen455(target, server.url)
    (aside,) = target.parent.glob("cpen455.incomplete-*")
    assert contents(aside) == old
    assert_arrived(target, files, [aside.name])
    said = capsys.readouterr().out
    assert "is incomplete: 25 files are missing or wrong" in said and f"what was there before is now {aside}" in said


def test_a_failing_rename_puts_the_old_folder_back(server, files, target, monkeypatch):
    old = spoil(target, files)
    rename = os.rename

    def failing(source, destination):
        if str(source).endswith(".tmp"):
            raise OSError(13, "Permission denied", str(source))
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(UsageError, match=r"cannot write .*cpen455: Permission denied .*; mend that and start again"):
        download_cpen455(target, server.url)
    assert contents(target) == old
    monkeypatch.undo()


def test_folders_of_something_else_are_not_touched(server, target):
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else: give a new folder with --root"):
        download_cpen455(target, server.url)
    assert contents(target) == {"thesis.txt": b"years of work"} and server.log == []
    with pytest.raises(UsageError, match="holds something else"):
        download_cpen455("/", server.url)


def test_an_empty_folder_is_filled(server, files, target):
    target.mkdir(parents=True)
    download_cpen455(target, server.url)
    assert_arrived(target, files)


def test_nowhere_to_write(server, files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*: (Not a directory|File exists) .*; mend that and start"):
        download_cpen455(tmp_path / "file" / "cpen455", server.url)


def test_a_full_disk(server, files, target):
    """A real limit on the size of files: what was there stays, and with room it goes on."""
    resource = pytest.importorskip("resource")
    old = spoil(target, files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, before[1]))
        with pytest.raises(UsageError, match=r"cannot write .*: File too large .*; mend that and start again"):
            download_cpen455(target, server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(target) == old
    download_cpen455(target, server.url)
    assert server.log[1][1] == "bytes=40000-" and contents(target) == files


# kills

PROGRAM = """
import functools, os, signal, sys
from pathlib import Path
from kit import download

target, url, manifest, fatal = sys.argv[1:]
download.MANIFEST = Path(manifest)
calls = 0

def counted(function):
    def call(*args):
        global calls
        calls += 1
        if calls == int(fatal):
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args)
        if calls == -int(fatal):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

for name in ("fsync", "replace", "rename"):
    setattr(os, name, counted(getattr(os, name)))
download.download_cpen455(target, url)
print(calls)
"""


def start(target, url, fatal=0) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(target), url, str(download.MANIFEST), str(fatal)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)


def test_killed_at_random_bytes(server, files, target):
    offsets = sorted(random.Random(0).sample(range(1, len(server.body)), 5))
    came = 0
    for offset in offsets:
        server.faults = [("stall", offset - came)]
        with start(target, server.url) as process:
            deadline = time.monotonic() + 120
            while not (parts := [p for p in target.parent.glob(".*.part") if p.stat().st_size == offset]):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.005)
            process.kill()
        assert parts[0].read_bytes() == server.body[:offset] and not target.exists()
        came = offset
    download_cpen455(target, server.url)
    assert [asked for _, asked in server.log] == [None, *(f"bytes={offset}-" for offset in offsets)]
    assert_arrived(target, files)


def test_killed_at_every_step_of_unpacking(server, files, target):
    """Before and after each call that makes something durable, an incomplete folder being there."""
    old = spoil(target, files)
    with start(target, server.url) as process:
        calls = int(process.communicate()[0].splitlines()[-1])
    assert calls == 1 + len(files) + 4 + 2 + 1  # the archive, files, folders, two renames, the parent
    for fatal in (1, -1, 15, -31, 32, -32, -33, -34):
        folder = target.with_name(f"cpen455_{fatal}")
        spoil(folder, files)
        requests = len(server.log)
        with start(folder, server.url, fatal) as process:
            assert process.wait() == -signal.SIGKILL
        olds = [path for path in folder.parent.glob(f"{folder.name}*") if contents(path) == old]
        assert len(olds) == 1 and (not folder.exists() or contents(folder) in (old, files)), fatal
        download_cpen455(folder, server.url)
        assert contents(folder) == files
        assert [contents(path) for path in folder.parent.glob(f"{folder.name}.*")] == [old]
        assert len(server.log) <= requests + 3
        if abs(fatal) > 1:
            assert len(server.log) == requests + 1, "the archive had come"


# CIFAR-10


@pytest.fixture
def small_cifar10(server, monkeypatch) -> np.ndarray:
    """torchvision's own reader, told of a small archive; -> the pictures of its training batch."""
    from torchvision.datasets import CIFAR10

    pictures = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    members = {
        "data_batch_1": {"data": pictures[:4], "labels": [3, 1, 0, 2]},
        "test_batch": {"data": pictures[4:], "labels": [9, 8]},
        "batches.meta": {"label_names": [f"class{i}" for i in range(10)]},
    }
    md5s, archive = {}, io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for name, content in members.items():
            pickled = pickle.dumps(content)
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(pickled)
            file.addfile(info, io.BytesIO(pickled))
            md5s[name] = hashlib.md5(pickled).hexdigest()
    server.body = archive.getvalue()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(server.body).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5s["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5s["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5s["batches.meta"]})
    return pictures[:4]


def test_cifar10(server, small_cifar10, tmp_path, capsys):
    command = ["data", "cifar10", "--root", str(tmp_path / "cifar10"), "--url", server.url]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said == f"{tmp_path}/cifar10 is complete: 4 training and 2 test pictures, checked by MD5\n"
    train = data.load_split("cifar10", "train", tmp_path / "cifar10")
    assert torch.equal(train.images, torch.from_numpy(small_cifar10).view(4, 3, 32, 32))
    assert train.labels.tolist() == [3, 1, 0, 2]
    requests = len(server.log)
    assert main(command) == 0 and len(server.log) == requests


@pytest.mark.parametrize(
    "fault,message",
    [
        (("cut", 5000), "File not found or corrupted"),
        (("body", b"<html>"), "File not found or corrupted"),
        (("stall", 5000), "nothing came for 1 s"),
        (("status", 404), "Not Found"),
    ],
)
def test_cifar10_faults(server, small_cifar10, tmp_path, fault, message):
    server.faults = [("", 0), fault]  # torchvision first asks where redirects lead
    timeout = socket.getdefaulttimeout()
    with pytest.raises(UsageError, match=rf"/zip did not come whole into .*cifar10: {message}.*; start again, or give"):
        download_cifar10(tmp_path / "cifar10", server.url, timeout=1.0 if fault[0] == "stall" else 60.0)
    assert socket.getdefaulttimeout() == timeout
    download_cifar10(tmp_path / "cifar10", server.url)
    with pytest.raises(UsageError, match="only http and https"):
        download_cifar10(tmp_path / "other", "file:///etc/passwd")


def test_a_fault_on_the_command_line(server, target, capsys):
    server.faults = [("status", 404)]
    assert main(["data", "cpen455", "--root", str(target), "--url", server.url]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {server.url} answered 404 Not Found")
    assert main(["data", "mnist"]) == 2
    assert "cpen455" in capsys.readouterr().err
