"""Data sets from the network, when asked for: every file is checked, and a folder is laid down whole or not at all."""

import contextlib
import errno
import http.client
import io
import os
import re
import shutil
import socket
import stat
import time
import zipfile
import zlib
from pathlib import Path

from utils import UsageError
from utils.data import FOLDER as DATA
from utils.pictures import visible

MANIFEST = DATA / "cpen455.sha256"  # as sha256sum writes it, paths relative to the data set's folder
URL = "https://codeload.github.com/DSL-Lab/CPEN455HW-2024W2/zip/164cace187ba1fc97c8a39f017ee80d475d8b102"
LIMIT = 256 * 2**20  # bytes: more than the archive, or what is in it, could be
HERE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EEXIST, errno.ENOTDIR}  # not the network's faults
OTHER = "start again, or give another address with --url"


class BadArchive(UsageError):
    """What came is not the archive that was expected."""


def download_cpen455(target: str | Path | None = None, url: str | None = None, timeout: float = 30.0) -> None:
    """Downloads the course's archive and lays its pictures and tables down in `target`, by one rename.

    A complete `target` (default data/cpen455) is left as it is; an incomplete one is moved aside when the new one is
    ready. `url` is of a zip archive that holds the files in `data`, one folder down. The connection is given up after
    `timeout` seconds without a byte. What a killed call left is removed: only one at a time may work on a `target`.

    Raises UsageError: no connection, not all came, not the archive that was expected, no room on the disk.
    """
    target = Path(os.path.abspath(DATA / "cpen455" if target is None else target))
    url = URL if url is None else url
    _check_scheme(url)
    manifest = {name: digest for digest, name in map(str.split, MANIFEST.read_text(encoding="utf-8").splitlines())}
    try:
        if target.is_file():
            raise UsageError(f"{target} is a file: give a folder with --root")
        if target.is_dir() and visible(target):
            wrong = _wrong(target, manifest)
            if not wrong:
                return print(f"{target} is complete, {len(manifest)} files: nothing to do")
            if not any((target / name).is_file() for name in manifest):
                raise UsageError(f"{target} is there already and holds something else: give a new folder with --root")
            print(f"{target} is incomplete: {len(wrong)} files are missing or wrong, {wrong[0]} first")
        work = target.with_name(f".{target.name}.tmp")
        aside = target.with_name(f"{target.name}.incomplete-{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.rmtree(work, ignore_errors=True)
        try:
            unpack_archive(_fetch(url, work, timeout), work / "data", manifest)
            if hasattr(os, "sync"):  # not on Windows
                os.sync()  # or after a power cut the name could be there without the bytes
            with contextlib.suppress(OSError):
                target.rmdir()  # if it is empty
            if replacing := os.path.lexists(target):
                os.rename(target, aside)
            try:
                os.rename(work / "data", target)
            except OSError:
                if replacing:
                    os.rename(aside, target)
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if replacing:
            print(f"what was there before is now {aside}")
    except BadArchive as error:
        raise UsageError(f"{_plain(url)} is refused: {error}; nothing was kept: {OTHER}") from None
    except OSError as error:
        cure = "fix that, or choose a folder with --root DIR and name it in $CPEN455_ROOT"
        raise UsageError(f"cannot write {target}: {error.strerror or error}; {cure}") from None
    print(f"{target} is complete: {len(manifest)} files, each checked by its SHA-256")


class _Limited(io.FileIO):
    def write(self, piece):
        if self.tell() + len(piece) > LIMIT:
            raise BadArchive(f"it is larger than {LIMIT} bytes")
        return super().write(piece)


def _fetch(url: str, folder: Path, timeout: float) -> Path:
    """The archive, in `folder`; its files are compared with digests, not itself: GitHub's are not byte-stable."""
    import pooch
    import requests
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __bool__(self):  # pooch asks, and tqdm denies while the length is not known
            return True

    def save(url: str, path: str, _pooch: object) -> None:
        with Bar(unit="B", unit_scale=True, leave=False, disable=None) as bar, _Limited(path, "wb") as file:
            pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=timeout)(url, file, None)

    print(f"downloading {_plain(url)}", flush=True)
    pooch.get_logger().setLevel("ERROR")  # its lines show the whole address
    try:
        return Path(pooch.retrieve(url, known_hash=None, fname="archive.zip", path=folder, downloader=save))
    except (requests.RequestException, ValueError) as error:
        raise BadArchive(_reason(error, timeout)) from None


def unpack_archive(archive: Path, folder: Path, manifest: dict[str, str]) -> None:
    """Writes the files of `manifest` (path -> SHA-256 in hex) from the archive's `*/data/` into the new `folder`.

    Raises BadArchive: it is damaged; files are missing or wrong; a member leads out of its folder, is a link or a
    device, or oddly compressed; more than `LIMIT` bytes would come out of it.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                name, mode = member.orig_filename, member.external_attr >> 16  # zipfile has repaired .filename
                odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR) or member.compress_type not in (0, 8)
                if odd or re.search(r"^/|^.:|\\|\0|(^|/)\.\.(/|$)", name):
                    raise BadArchive(f"its member {name[:80]!r} leads out, is a link, a device or oddly compressed")
            top = "".join(file.namelist()[:1]).partition("/")[0]
            members = {name: info for name in manifest if (info := file.NameToInfo.get(f"{top}/data/{name}"))}
            # zipfile ends a file at the size that its header states, so no more than this sum comes out
            if sum(member.file_size for member in members.values()) > LIMIT:
                raise BadArchive(f"more than {LIMIT} bytes come out of it")
            for name, member in members.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, open(folder / name, "wb") as out:
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        begin = archive.read_bytes()[:15]
        raise BadArchive(f"not a whole zip archive ({error}), it begins with {begin!r}") from None
    if wrong := _wrong(folder, manifest):
        raise BadArchive(f"of {len(manifest)} files {len(wrong)} are missing or wrong, {wrong[0]} first")


def _wrong(folder: Path, manifest: dict[str, str]) -> list[str]:
    import pooch

    return [n for n, digest in manifest.items() if not (folder / n).is_file() or pooch.file_hash(folder / n) != digest]


def _plain(text: str) -> str:
    """What others say, in one printable line, without an address's query and password, which are secret."""
    text = re.sub(r"//[^/]*@", "//", re.split("[?#]", text)[0])
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _check_scheme(url: str) -> None:
    if not re.match("https?://", url, re.IGNORECASE):
        raise UsageError(f"only http and https are fetched, not {_plain(url)}: give another address with --url")


def _reason(error: BaseException, timeout: float) -> str:
    """What the first of a chain of errors says."""
    while error.__context__:
        error = error.__context__
    if isinstance(error, TimeoutError):
        return f"nothing came for {timeout:g} s"
    return _plain(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def download_cifar10(root: str | Path | None = None, url: str | None = None, timeout: float = 30.0) -> None:
    """CIFAR-10 through torchvision, which compares MD5 sums and leaves complete files as they are.

    `root` is data/cifar10 by default, `url` of cifar-10-python.tar.gz; the connection is given up after `timeout`
    seconds without a byte. Raises UsageError: no connection, not all came, not the official files, no room on the disk.
    """
    from torchvision.datasets import CIFAR10

    root = Path(DATA / "cifar10" if root is None else root)
    url = CIFAR10.url if url is None else url
    _check_scheme(url)
    official = type("CIFAR10", (CIFAR10,), {"url": url})
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)  # torchvision sets none
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its own lines differ from release to release
            counts = [len(official(str(root), train=train, download=True)) for train in (True, False)]
    except (OSError, RuntimeError, http.client.HTTPException, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in HERE:
            cure = "fix that, or choose a folder with --root DIR and give it as --data-root too"
            raise UsageError(f"cannot write {root}: {error.strerror}; {cure}") from None
        raise UsageError(f"{_plain(url)} did not come whole into {root}: {_reason(error, timeout)}; {OTHER}") from None
    finally:
        socket.setdefaulttimeout(before)
    print(f"{root} is complete: {counts[0]} training and {counts[1]} test pictures, checked by MD5")
