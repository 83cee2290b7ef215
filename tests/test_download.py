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
    """Serves `server.body`, with the faults that wait in `server.faults`, one a request."""

    def do_GET(self):
        server = self.server
        fault, number = server.faults.pop(0) if server.faults and self.path.startswith("/zip") else ("", 0)
        server.log.append(self.path)
        body = server.body
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
            for i in range(0, number or len(body), 1000):
                piece = body[i : i + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if fault == "chunked" else piece)
            if fault == "chunked" and not number:
                self.wfile.write(b"0\r\n\r\n")
            return None
        send = body[:number] if fault in ("cut", "stall", "reset") else body
        self.answer(200, send, length=len(body))
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
    assert not target.exists() and not list(target.parent.glob(".*"))
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


@pytest.mark.parametrize(
    "fault,message",
    [
        (("cut", 20000), r"IncompleteRead\(20000 bytes read, \d+ more expected\); nothing was kept: start again"),
        (("stall", 20000), r"nothing came for 1 s; nothing was kept: start again, or give another address with --url"),
        (("reset", 20000), r"Connection reset by peer; nothing was kept: start again"),
        (("chunked", 20000), r"nothing was kept: start again"),
        (("unsized", 20000), r"refused: not a whole zip archive .*; nothing was kept: start again"),
        (("garbage", 0), r"nothing was kept: start again"),
        (
            ("status", 404),
            r"/zip is refused: 404 Client Error: Not Found for url: http.*; nothing was kept: start again",
        ),
        (("status", 503), r"/zip is refused: 503 Server Error: Service Unavailable"),
        (("status", 204), r"/zip is refused: not a whole zip archive"),
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


def test_wrong_bytes(server, files, target):
    spoilt = files | {"train.csv": b"train/0000001.jpg,0\n", "test/0000020.jpg": b"\xff\xd8\xff"}
    del spoilt["train/0000002.jpg"]
    server.body = zipped(spoilt)
    said = refused(target, server.url)
    assert "is refused: of 26 files 3 are missing or wrong, train.csv first; nothing was kept" in said
    assert list(target.parent.iterdir()) == []


def test_nobody_answers(target, files):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        said = refused(target, f"http://127.0.0.1:{taken.getsockname()[1]}/zip")
    assert re.search(r"http://127.0.0.1:\d+/zip is refused: Connection refused; nothing was kept", said)


def test_redirects_that_lead_nowhere(server, target, tmp_path):
    (tmp_path / "secret").write_bytes(server.body)
    server.moved = {
        "/good": "/zip",
        "/loop": "/pool",
        "/pool": "/loop",
        "/file": (tmp_path / "secret").as_uri(),
        "/ftp": "ftp://h/x",
    }
    base = server.url.removesuffix("/zip")
    assert "Exceeded 30 redirects" in refused(target, base + "/loop")
    assert "No connection adapters were found for 'file:///" in refused(target, base + "/file")
    assert "No connection adapters were found for 'ftp://h/x'" in refused(target, base + "/ftp")
    for url in ((tmp_path / "secret").as_uri(), "data:,x", "cpen455.zip", "//host/zip", ""):
        assert "only http and https are fetched" in refused(target, url)
    download_cpen455(target, base + "/good")


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://host:port/zip", "http://127.0.0.1:1/\u00e9\u4e2d", "http://a b/"]
)
def test_addresses_that_are_none(target, files, url):
    assert "is refused: " in refused(target, url)


def test_tokens_are_not_shown(server, target, capfd):
    server.faults = [("status", 403)]
    said = refused(target, server.url + "?token=sesame")
    server.moved = {"/zip?token=sesame": "ftp://h/?token=sesame"}
    said += refused(target, server.url + "?token=sesame")
    said += refused(target, "http://me:sesame@127.0.0.1:1/zip?token=sesame#sesame")
    assert "sesame" not in said + "".join(capfd.readouterr())


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
    "info",
    [
        member("../evil"),
        member(f"{TOP}/data/../../../evil"),
        member("/tmp/evil"),
        member("C:/evil"),
        member(f"{TOP}\\data\\..\\evil"),
        member(f"{TOP}/data/train", stat.S_IFLNK | 0o777),
        member(f"{TOP}/data/null", stat.S_IFCHR | 0o666),
        member(f"{TOP}/data/pipe", stat.S_IFIFO | 0o666),
        member(f"{TOP}/data/x", method=zipfile.ZIP_BZIP2),
    ],
)
def test_harmful_members(server, files, target, tmp_path, info):
    server.body = zipped(files, (info, b"/etc/passwd"))
    before = sorted(tmp_path.rglob("*"))
    said = refused(target, server.url)
    assert f"is refused: its member {info.filename!r} leads out, is a link" in said
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
        if str(source).endswith(".tmp/data"):
            raise OSError(13, "Permission denied", str(source))
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(
        UsageError,
        match=r"cannot write .*cpen455: .*Permission denied.*; fix that, or choose a folder with --root DIR",
    ):
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


def test_a_folder_that_only_a_system_has_written_to_is_filled(server, files, target):
    target.mkdir(parents=True)
    (target / ".DS_Store").write_bytes(b"Bud1")
    download_cpen455(target, server.url)
    (aside,) = target.parent.glob("*.incomplete-*")  # nothing is thrown away
    aside.rename(target.parent.parent / "aside")
    assert_arrived(target, files)


def test_nowhere_to_write(server, files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"cannot write .*(Not a directory|File exists).*; fix that, or choose a folder with --root"
    ):
        download_cpen455(tmp_path / "file" / "cpen455", server.url)


def test_a_file_in_the_folders_place_stays(server, tmp_path):
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(UsageError, match=r"file is a file: give a folder with --root"):
        download_cpen455(tmp_path / "file", server.url)
    assert (tmp_path / "file").read_text() == "years of work" and server.log == []


def test_a_kit_that_may_not_be_written(server, monkeypatch, target):
    """As a lab's shared installation: the message names the ways out."""

    def refuse(*_args, **_more):
        raise PermissionError(13, "Permission denied", "/shut")

    monkeypatch.setattr("kit.download._fetch", refuse)
    with pytest.raises(
        UsageError, match=r"cannot write .*: Permission denied; .* --root DIR and name it in \$CPEN455_"
    ):
        download_cpen455(target, server.url)


def test_a_full_disk(server, files, target):
    """A real limit on the size of files: what was there stays, and with room it works."""
    resource = pytest.importorskip("resource")
    old = spoil(target, files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, before[1]))
        with pytest.raises(
            UsageError, match=r"cannot write .*File too large.*; fix that, or choose a folder with --root DIR"
        ):
            download_cpen455(target, server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(target) == old
    download_cpen455(target, server.url)
    assert contents(target) == files


# kills

PROGRAM = """
import os, shutil, signal, sys
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

os.sync, os.rename, shutil.copyfileobj = map(counted, (os.sync, os.rename, shutil.copyfileobj))
download.download_cpen455(target, url)
print(calls)
"""


def start(target, url, fatal=0) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(target), url, str(download.MANIFEST), str(fatal)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("fatal", [0, 1, -1, 15, 28, -28, -29, -30])
def test_killed_at_any_step(server, files, target, fatal):
    """While it downloads; before (or after, if negative) the archive has come, a file is unpacked, all is through to
    the disk, each of the renames. An incomplete folder being there, the old or the new survives."""
    old = spoil(target, files)
    server.faults = [("stall", 30000)] if fatal == 0 else []
    with start(target, server.url, fatal) as process:
        while fatal == 0 and not (server.log and any(target.parent.glob(".*/*"))):
            assert process.poll() is None
            time.sleep(0.005)
        if fatal == 0:
            process.kill()
        assert process.wait() == -signal.SIGKILL
    olds = [path for path in target.parent.glob(f"{target.name}*") if contents(path) == old]
    assert len(olds) == 1 and (not target.exists() or contents(target) in (old, files))
    download_cpen455(target, server.url)
    (aside,) = target.parent.glob("cpen455.*")
    assert contents(aside) == old
    if fatal != -30:  # then all was done, and nothing looks for left-overs
        assert_arrived(target, files, [aside.name])
    assert contents(target) == files


def test_left_overs_are_not_used(server, files, target):
    left_over = target.with_name(".cpen455.tmp")
    (left_over / "data").mkdir(parents=True)
    (left_over / "data" / "stale").touch()
    (left_over / "archive.zip").write_bytes(b"half")
    download_cpen455(target, server.url)
    assert_arrived(target, files)


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


def test_cifar10_where_nothing_may_be_written(server, small_cifar10, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file: File exists; .* --root DIR .* --data-root"):
        download_cifar10(tmp_path / "file", server.url)


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
    with pytest.raises(
        UsageError, match=rf"/zip did not come whole into .*cifar10: .*{message}.*; start again, or give"
    ):
        download_cifar10(tmp_path / "cifar10", server.url, timeout=1.0 if fault[0] == "stall" else 60.0)
    assert socket.getdefaulttimeout() == timeout
    download_cifar10(tmp_path / "cifar10", server.url)
    with pytest.raises(UsageError, match="only http and https"):
        download_cifar10(tmp_path / "other", "file:///etc/passwd")


def test_a_fault_on_the_command_line(server, target, capsys):
    server.faults = [("status", 404)]
    assert main(["data", "cpen455", "--root", str(target), "--url", server.url]) == 2
    out, err = capsys.readouterr()
    assert (
        out == f"downloading {server.url}\n"
        and err.count("\n") == 1
        and err.startswith(f"error: {server.url} is refused: 404 Client Error: Not Found")
    )
    assert main(["data", "mnist"]) == 2
    assert "cpen455" in capsys.readouterr().err
