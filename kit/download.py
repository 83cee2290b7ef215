"""Data sets from the network, when asked for: every file is checked, and a folder is laid down whole or not at all."""

import contextlib
import glob
import hashlib
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
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from utils import UsageError
from utils.data import FOLDER as DATA

MANIFEST = DATA / "cpen455.sha256"  # as sha256sum writes it, paths relative to the data set's folder
URL = "https://codeload.github.com/DSL-Lab/CPEN455HW-2024W2/zip/164cace187ba1fc97c8a39f017ee80d475d8b102"
LIMIT = 256 * 2**20  # bytes: more than the archive, or what is in it, could be
MAX_REDIRECTS = 10
PIECE = 2**16
OTHER = "or give another address with --url"


class BadArchive(UsageError):
    """What came is not the archive that was expected."""


def download_cpen455(target: str | Path | None = None, url: str | None = None, timeout: float = 30.0) -> None:
    """Downloads the course's archive and lays its pictures and tables down in `target`, by one rename.

    When this is interrupted, what has come stays beside `target` and the next call goes on from there. A complete
    `target` is left as it is; an incomplete one is moved aside when the new one is ready.

    Args:
        target: the data set's folder; default data/cpen455.
        url: a zip archive that holds the files in `data`, one folder down; default GitHub's, of a fixed commit.
        timeout: seconds without a byte after which the connection is given up.

    Raises:
        UsageError: no connection, not all came, not the archive that was expected, no room on the disk.
    """
    target = Path(os.path.abspath(DATA / "cpen455" if target is None else target))
    url = URL if url is None else url
    try:
        manifest = {name: digest for digest, name in map(str.split, MANIFEST.read_text().splitlines())}
        if target.is_dir() and any(target.iterdir()):
            wrong = [name for name, digest in manifest.items() if _digest(target / name) != digest]
            if not wrong:
                print(f"{target} is complete, {len(manifest)} files: nothing to do")
                return
            if not any((target / name).is_file() for name in manifest):
                raise UsageError(f"{target} is there already and holds something else: give a new folder with --root")
            print(f"{target} is incomplete: {len(wrong)} files are missing or wrong, {wrong[0]} first")
        part = target.with_name(f".{target.name}.{hashlib.sha256(os.fsencode(url)).hexdigest()[:12]}.part")
        archive, unpacked = part.with_suffix(".zip"), target.with_name(f".{target.name}.{os.getpid()}.tmp")
        part.parent.mkdir(parents=True, exist_ok=True)
        kept = archive.exists()  # of an earlier call
        if not kept:
            kept = fetch(url, part, timeout)
            os.replace(part, archive)
        try:
            unpack_archive(archive, unpacked, manifest)
            _put_in_place(unpacked, target)
        except BadArchive as error:
            archive.unlink()
            if not kept:
                raise UsageError(f"{_shown(url)} is refused: {error}; nothing was kept: start again, {OTHER}") from None
            print(f"what came in several pieces is refused: {error}; once more from the first byte")
            return download_cpen455(target, url, timeout)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        for left_over in target.parent.glob(f".{glob.escape(target.name)}.*"):  # of this call, and of killed ones
            if left_over.suffix in (".part", ".zip"):
                left_over.unlink()
            elif left_over.suffix == ".tmp":
                shutil.rmtree(left_over, ignore_errors=True)
        print(f"{target} is complete: {len(manifest)} files, each checked by its SHA-256")
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename or target.parent})"
        raise UsageError(f"cannot write {target}: {reason}; mend that and start again, nothing is lost") from None


def fetch(url: str, part: Path, timeout: float) -> bool:
    """Brings `part` to the whole of what is at `url`; -> whether bytes of an earlier call were kept.

    Raises UsageError when not all of it comes; what did come is in `part`.
    """
    from tqdm.auto import tqdm

    done = part.stat().st_size if part.exists() else 0
    with _open(url, done, timeout) as response:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        total: int | None
        if response.status == 200:  # all of it, whatever was asked for
            done, total = 0, response.length
        elif done and response.status == 206 and place and int(place[1]) == done:
            total = int(place[2])
        elif done:
            part.unlink()
            return fetch(url, part, timeout)
        else:
            raise UsageError(f"{_shown(url)} answered {response.status}: try again later, {OTHER}")
        kept = done > 0
        print(f"downloading {_shown(url)}" + (f", going on after {done} bytes" if kept else ""), flush=True)
        end, why = min(LIMIT + 1, total or LIMIT + 1), ""
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, leave=False, disable=None)
        with bar, open(part, "ab" if kept else "wb") as file:
            while done < end:
                try:
                    piece = response.read1(min(PIECE, end - done))  # read would lose what came before a time-out
                except (OSError, http.client.HTTPException) as error:
                    why, piece = f"{_reason(error, timeout)}: ", b""
                if not piece:
                    break
                file.write(piece)
                file.flush()
                done += len(piece)
                bar.update(len(piece))
    if done > LIMIT:
        part.unlink()
        raise UsageError(f"{_shown(url)} is refused, it is larger than {LIMIT} bytes: start again, {OTHER}")
    if why or done < (total or 0):
        whole = f" of {total}" if total else ""
        raise UsageError(f"{why}only {done}{whole} bytes came; start again, it goes on from there")
    return kept


class _NoRedirects(HTTPRedirectHandler):
    """Leaves redirects to `_open`: Python itself would follow them to ftp, and 308 not in every version."""

    def redirect_request(self, *_args):
        return None


def _open(url: str, start: int, timeout: float) -> http.client.HTTPResponse:
    """The answer to a request for `url` from byte `start` on, or for all of it when there is no such byte."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    for _ in range(MAX_REDIRECTS + 2):
        _check_scheme(url)
        try:
            return build_opener(_NoRedirects).open(Request(url, headers=headers), timeout=timeout)
        except HTTPError as error:
            error.close()
            location = error.headers.get("Location")
            if error.code == 416 and headers:
                headers = {}
            elif error.code in (301, 302, 303, 307, 308) and location:
                url = urljoin(url, location)
            else:
                answer = f"answered {error.code} {_plain(error.reason)}"
                raise UsageError(f"{_shown(url)} {answer}: try again later, {OTHER}") from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = _reason(error, timeout)
            raise UsageError(f"cannot reach {_shown(url)}: {reason}; see to the network and start again") from None
    raise UsageError(f"more than {MAX_REDIRECTS} redirects, at last to {_shown(url)}: try again later, {OTHER}")


def unpack_archive(archive: Path, folder: Path, manifest: dict[str, str]) -> None:
    """Writes the manifest's files, found in the archive's `*/data/`, into `folder`, through to the disk.

    Args:
        manifest: path below `data` -> SHA-256 in hex. Nothing else is unpacked.

    Raises:
        BadArchive: it is damaged; files are missing or wrong; a member leads out of its folder, or is a link or a
            device; more than `LIMIT` bytes come out of it, whatever its headers say.
    """
    from tqdm.auto import tqdm

    shutil.rmtree(folder, ignore_errors=True)
    missing, wrong, size = [], [], 0
    try:
        with zipfile.ZipFile(archive) as file:
            members = {}
            for member in file.infolist():
                _check_member(member)
                top, _, below = member.filename.partition("/data/")
                if "/" not in top:
                    members[below] = member
            for name, expected in tqdm(manifest.items(), unit=" files", leave=False, disable=None):
                if name not in members:
                    missing.append(name)
                    continue
                digest = hashlib.sha256()
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with file.open(members[name]) as source, open(folder / name, "wb") as out:
                    while piece := source.read(PIECE):
                        size += len(piece)
                        if size > LIMIT:
                            raise BadArchive(f"more than {LIMIT} bytes come out of it")
                        digest.update(piece)
                        out.write(piece)
                    out.flush()
                    os.fsync(out.fileno())
                if digest.hexdigest() != expected:
                    wrong.append(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        with open(archive, "rb") as raw:
            raise BadArchive(f"not a whole zip archive ({error}), it begins with {raw.read(15)!r}") from None
    if missing or wrong:
        first = min(missing + wrong)
        raise BadArchive(f"of {len(manifest)} files {len(missing)} are missing and {len(wrong)} wrong, {first} first")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # zipfile has mended .filename
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise BadArchive(f"its member {name[:80]!r} leads out of the folder")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadArchive(f"its member {name[:80]!r} is a link or a device")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadArchive(f"its member {name[:80]!r} is compressed neither by deflate nor not at all")


def _put_in_place(folder: Path, target: Path) -> None:
    """Renames `folder` to `target`; what was there under that name is moved aside, and back on failure."""
    for inner in (folder, *filter(Path.is_dir, folder.rglob("*"))):
        _sync_folder(inner)
    aside = target.with_name(f"{target.name}.incomplete-{time.strftime('%Y%m%d-%H%M%S')}")
    with contextlib.suppress(OSError):
        target.rmdir()  # if it is empty
    replacing = os.path.lexists(target)
    if replacing:
        os.rename(target, aside)
    try:
        os.rename(folder, target)
    except OSError:
        if replacing:
            os.rename(aside, target)
        raise
    _sync_folder(target.parent)
    if replacing:
        print(f"what was there before is now {aside}")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _plain(text: str) -> str:
    """What others say, in one printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _shown(url: str) -> str:
    """Without the query, which may hold a token."""
    return _plain(url.split("?")[0])


def _check_scheme(url: str) -> None:
    with contextlib.suppress(ValueError):  # of what cannot even be split
        if urlsplit(url).scheme in ("http", "https"):
            return
    raise UsageError(f"only http and https are fetched, not {_shown(url)}: give another address with --url")


def _reason(error: Exception, timeout: float) -> str:
    error = getattr(error, "reason", error)
    if isinstance(error, TimeoutError):
        return f"nothing came for {timeout:g} s"
    return _plain(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def download_cifar10(root: str | Path | None = None, url: str | None = None, timeout: float = 30.0) -> None:
    """CIFAR-10 through torchvision, which compares MD5 sums and leaves complete files as they are.

    Args:
        root: the data set's folder; default data/cifar10.
        url: of cifar-10-python.tar.gz; default torchvision's.
        timeout: seconds without a byte after which the connection is given up.

    Raises:
        UsageError: no connection, not all came, not the official files, no room on the disk.
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
        reason = _reason(error, timeout)
        raise UsageError(f"{_shown(url)} did not come whole into {root}: {reason}; start again, {OTHER}") from None
    finally:
        socket.setdefaulttimeout(before)
    print(f"{root} is complete: {counts[0]} training and {counts[1]} test pictures, checked by MD5")
