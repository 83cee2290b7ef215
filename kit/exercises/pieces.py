"""The pieces of the network that the reader builds: checked, kept in a folder of their own, taken by later notebooks.

When a check says "Right", what the piece needs is written into one file, `notebooks/mine/NAME.py`: the imports, the
helpers that stand in other cells, and the definition itself. `take("NAME")` gives the reader's piece while it passes
its check, else the kit's; `pieces()` says which is which.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import linecache
import pkgutil
import re
import symtable
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from utils import UsageError
from utils.checkpoints import write_atomically

from .. import platforms
from ..console import KIT, shown
from . import Exercise

NOTEBOOKS = (  # files of this folder, from notebook 01 on
    "masked_convolutions", "mixture_of_logistics", "conditioning", "training",
    "zero_shot_classification", "sample_gallery", "fast_sampling",
)  # fmt: skip


class Piece(Exercise):
    """An exercise whose answer is kept and used.

    `answer` is defined in `solutions/`, or in `utils`, under the name that the reader's piece has too. `kit` names the
    function or class of `utils` that does the same, if there is one; while an attempt is examined, it is locked.
    """

    kit: str = ""

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.answer.__name__

    def examine(self, attempt) -> tuple[int, str | None]:
        if attempt is None or attempt is ...:
            return 0, "there is nothing yet; replace the dots with your code."
        if not callable(attempt) or getattr(attempt, "__name__", "") != self.name:
            return 0, f"a definition is called {self.name} here; define it so, and hand it to the check."
        for each in getattr(attempt, "__mro__", [attempt]):  # a class's bases too
            if str(getattr(each, "__module__", "")).partition(".")[0] in ("utils", "kit"):
                verb = "this is" if each.__name__ == self.name else "it is built on"
                return 0, f"{verb} the kit's own {each.__name__}; write yours."
        with locked(self.kit, attempt):
            return super().examine(attempt)

    def check(self, attempt) -> None:
        """Prints the verdict, and keeps what is right."""
        nr_right, problem = self.examine(attempt)
        print(self.told(nr_right, problem), *([self.keep(attempt)] if problem is None else []))

    def keep(self, attempt) -> str:
        """Writes the piece's file; -> a sentence that says where, or why not."""
        path = folder() / f"{self.name}.py"
        text = f"# {self.name}: kept when its check said that it is right; it is used until another one passes\n"
        try:
            text += Source(attempt).text()
            problem = examined(self.name, path, text)[1]
            if problem is not None:
                return f"It is not kept: in a file of its own it does not work ({problem.rstrip('.')})."
            write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        except UsageError as error:
            return f"It is not kept: {error}."
        return f"Kept as {shown(path)}: from here on your {self.name} is used."


@contextlib.contextmanager
def locked(kit: str, attempt):
    """While open, the function or class of `utils` that is called so refuses to be used, by the attempt too."""

    def refuse(*args, **kwargs):
        raise UsageError(f"{kit} is the kit's own; write yours without it")

    with contextlib.ExitStack() as stack:
        if kit:
            own = pkgutil.resolve_name(kit)
            stack.enter_context(mock.patch(kit, refuse))
            for function in functions_of(attempt):
                names = function.__globals__  # which may have it under any name
                for name in [name for name, value in names.items() if value is own]:
                    names[name] = refuse
                    stack.callback(names.__setitem__, name, own)
        yield


def folder() -> Path:
    """Where pieces are kept: notebooks/mine in the kit; on Kaggle and Colab beside the runs, to outlive the session."""
    if platforms.platform_name() == "laptop" or platforms.runs_folder() == platforms.RUNS:
        return KIT / "notebooks" / "mine"
    return platforms.runs_folder().parent / "mine"


def find(name: str) -> Path | None:
    """The file of the reader's piece; also one that an earlier Kaggle session left and that is attached."""
    path = folder() / f"{name}.py"
    return path if path.is_file() else attached(platforms.KAGGLE_INPUT).get(name)


@functools.cache
def attached(where: Path) -> dict[str, Path]:
    """Pieces by name; looked for once, because what is attached may be large, and stays as it is."""
    return {path.stem: path for path in sorted(where.glob("**/mine/*.py"), reverse=True)}


def loaded(text: str, path: Path) -> dict:
    """What the text of a piece's file defines."""
    module = types.ModuleType(f"mine.{path.stem}")
    module.__file__ = str(path)
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module.__dict__


def registry() -> dict[str, tuple[Piece, int]]:
    """Every piece by name, with the number of its notebook, in the order of the notebooks."""
    found: dict[str, tuple[Piece, int]] = {}
    for number, name in enumerate(NOTEBOOKS, 1):
        module = importlib.import_module(f".{name}", __package__)
        found |= {piece.name: (piece, number) for piece in vars(module).values() if isinstance(piece, Piece)}
    return found


@functools.cache
def examined(name: str, path: Path, text: str) -> tuple[object, str | None]:
    """The piece in this text and what is wrong with it; each text is examined once."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            piece = loaded(text, path)[name]
            return piece, registry()[name][0].examine(piece)[1]
    except (Exception, SystemExit) as error:  # whatever a file may hold, the notebook goes on
        return None, f"it stopped with {type(error).__name__}: {error}"


def state(name: str) -> tuple[object | None, str]:
    """The reader's piece, if there is one that passes its check, and a few words on whose is used."""
    path = find(name)
    if path is None:
        return None, "the kit's"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, f"the kit's, because yours cannot be read ({error})"
    piece, problem = examined(name, path, text)
    if problem is not None:
        return None, f"the kit's, because yours in {shown(path)} no longer passes its check: {problem}"
    linecache.checkcache(str(path))
    return piece, "yours"


def take(name: str) -> Callable:
    """The piece of that name: the reader's while it passes its check, else the kit's; says which.

    Raises UsageError if no notebook builds a piece of that name.
    """
    if name not in registry():
        raise UsageError(f"no notebook builds {name!r}: choose from {', '.join(registry())}")
    piece, whose = state(name)
    print(f"{name}: {whose}")
    return piece or registry()[name][0].answer  # type: ignore[return-value]


def pieces() -> None:
    """Prints which pieces of the network are the reader's."""
    for name, (_, number) in registry().items():
        print(f"notebook {number:02d}  {name:<24}{state(name)[1]}")


class Source:
    """What a function or class needs to stand in a file of its own: imports, constants, other definitions."""

    def __init__(self, thing: Callable):
        self.imports: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.add_definition(thing, {})

    def text(self) -> str:
        return (
            "\n\n\n".join(filter(None, ["\n".join(sorted(self.imports.values())), *self.definitions.values()])) + "\n"
        )

    def add_definition(self, thing: Callable, around: dict) -> None:
        """`around`: the names of the cell in which it is used, which are its own too unless a function knows better."""
        name, text = thing.__name__, text_of(thing)
        self.definitions[name] = ""  # taken: a definition may name itself
        namespace = next((function.__globals__ for function in functions_of(thing)), around)
        for needed in globals_of(text):
            if needed in namespace and needed not in self.definitions and needed not in self.imports:
                self.add(needed, name, namespace)
        self.definitions[name] = self.definitions.pop(name) or text  # after what it needs

    def add(self, name: str, user: str, namespace: dict) -> None:
        value = namespace[name]
        module = getattr(value, "__module__", None)
        own = getattr(value, "__name__", name)
        renamed = f" as {name}" if own != name else ""
        if isinstance(value, types.ModuleType):
            self.imports[name] = f"import {value.__name__}{renamed}"
        elif module != "__main__" and getattr(sys.modules.get(str(module)), own, None) is value:
            self.imports[name] = f"from {module} import {own}{renamed}"
        elif home := next(
            (n for n, m in sys.modules.items() if n.startswith("utils.") and vars(m).get(name) is value), ""
        ):
            self.imports[name] = f"from {home} import {name}"  # an alias or a constant, which knows no module
        elif (inspect.isfunction(inspect.unwrap(value)) or inspect.isclass(value)) and not renamed:
            self.add_definition(value, namespace)
        elif is_literal(value):
            self.definitions[name] = f"{name} = {value!r}"
        else:
            raise UsageError(f"{user} uses {name}, which is made outside of it; make it inside, or take an argument")


def functions_of(thing: Callable) -> list[types.FunctionType]:
    """The function itself, undecorated, or the class's methods, those that its cell or file holds."""
    found = [
        getattr(value, "__func__", value) for value in (vars(thing).values() if inspect.isclass(thing) else [thing])
    ]
    written = [f for f in map(inspect.unwrap, found) if inspect.isfunction(f) and f.__module__ == thing.__module__]
    return [function for function in written if linecache.getlines(function.__code__.co_filename)]


def text_of(thing: Callable) -> str:
    """The definition of a function or class as its cell or file has it; `inspect` does not find a cell's classes.

    Raises UsageError where there is no text, as for a lambda.
    """
    name, code = getattr(thing, "__name__", ""), next((f.__code__ for f in functions_of(thing)), None)
    # a class without methods, such as a NamedTuple, stands in the newest cell that has one of its name
    for file in [code.co_filename] if code else reversed([*linecache.cache]):
        linecache.checkcache(file)
        lines = linecache.getlines(file)
        cell = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(lines), flags=re.MULTILINE)  # IPython's own commands
        try:
            tree = ast.parse(cell if name in cell else "")
        except SyntaxError:  # another cell's
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if not code or first <= code.co_firstlineno <= (node.end_lineno or 0):
                    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip()
    raise UsageError(f"the text of {name or 'it'} was not found; define it in a cell, with its name")


def globals_of(text: str) -> list[str]:
    """The names that a definition takes from outside of it, each once."""

    def walk(table: symtable.SymbolTable):
        for symbol in table.get_symbols():
            outside = table.get_type() == "module" and not symbol.is_assigned()
            if symbol.is_referenced() and (symbol.is_global() or outside):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return list(dict.fromkeys(walk(symtable.symtable(text, "cell", "exec"))))


def is_literal(value) -> bool:
    """Whether `repr` writes the value so that Python reads it."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(repr(value)) == value
    return False
