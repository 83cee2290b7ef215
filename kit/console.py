"""The kit at a terminal: how a command is typed here, and that any letter can be printed. It needs no package."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parents[1]
MAIN = str(Path(__file__).with_name("__main__.py"))  # started by its path it finds this kit from any folder


def any_letter() -> None:
    """From here on a letter that the output's encoding lacks is printed as its number, `\\u732b` say, not an error;
    what is printed on a closed stream is lost."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 it stays
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a notebook's, closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def printable(text: str) -> str:
    """A text on one line: a letter that could move a terminal's cursor, or turn a line around, as its number."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(path: str | Path) -> str:
    """The path as it is shorter: as it is, or from the current folder on."""
    with contextlib.suppress(ValueError):  # on another of Windows' drives
        return min(str(path), os.path.relpath(path), key=len)
    return str(path)


def quoted(*arguments: object) -> str:
    """A command's words as this system's shell takes them."""
    words = [str(word) for word in arguments]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def python() -> str:
    """This interpreter as it can be typed here: `python` if the shell means it by that, else its path."""
    here, found = sys.executable, shutil.which("python") or ""
    with contextlib.suppress(OSError):  # an environment's may be a link to another's, but from its own folder
        if os.path.samefile(here, found) and os.path.samefile(os.path.dirname(here), os.path.dirname(found)):
            return "python"
    return shown(here)


def typed(*arguments: object) -> str:
    """`python -m kit ARGUMENTS` as it can be pasted here: with this interpreter, what needs it quoted, and the kit by
    its path where Python would not find this one by its name."""
    places = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    named = next((place for place in places if Path(place, "kit", "__init__.py").is_file()), None)
    which = ["-m", "kit"] if named and Path(named).resolve() == KIT else [shown(KIT / "kit")]
    return quoted(python(), *which, *arguments)


def install(*packages: str) -> str:
    """What installs these packages, by default all that the kit needs."""
    return quoted(python(), "-m", "pip", "install", *(packages or ("-r", shown(KIT / "requirements.txt"))))
