"""Exercises out of sight: in the copy for students, which `python -m kit release` lays down.

There a module of exercises or solutions is a few lines that open the file beside it, in which its text lies compressed.
Sealed means out of sight and out of a search's reach, not out of reach: whoever opens the file can read it. So a grader
runs the checks of the teacher's copy.
"""

import base64
import sys
import zlib
from pathlib import Path

from utils import UsageError

ENDING = ".sealed"
WITHHELD = "The solution is in the teacher's copy of the kit."
STUB = '''\
"""Sealed: this module works, but its text, with the solutions and with what a check tries, is in the teacher's copy.

The file beside it holds it compressed, which is out of sight, not out of reach: whoever opens it reads the answers.
"""

from kit.exercises import sealed

sealed.unseal(globals())
'''


def seal(module: Path, place: Path) -> None:
    """Writes the lines that stand for a module to `place`, and beside them its text, sealed. Raises OSError."""
    place.write_text(STUB, encoding="utf-8")
    place.with_suffix(ENDING).write_bytes(base64.b85encode(zlib.compress(module.read_bytes(), 9)) + b"\n")


def opened(file: Path) -> bytes:
    """The text in a sealed file. Raises UsageError where that is missing or damaged."""
    try:
        return zlib.decompress(base64.b85decode(file.read_bytes().strip()))
    except (OSError, ValueError, zlib.error) as error:
        raise UsageError(f"{file} is missing or damaged ({error}): get the kit again") from error


def unseal(namespace: dict) -> None:
    """Runs a sealed module's text in the module, whose `globals()` are handed over. No file is named as its source, so
    that a traceback shows no line of it. Raises UsageError as `opened` does."""
    text = opened(Path(namespace["__file__"]).with_suffix(ENDING))
    exec(compile(text, f"<sealed {namespace['__name__']}>", "exec"), namespace)


def is_sealed(module: str) -> bool:
    """Whether the imported module of that name is a sealed one."""
    file = getattr(sys.modules[module], "__file__", None)
    return file is not None and Path(file).with_suffix(ENDING).is_file()
