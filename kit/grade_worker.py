"""Inside the isolation: the answers of one notebook, each examined in a process of its own. `kit.grading` starts it.

It reads a job from standard input and says what it finds on what was its standard output, a line of JSON each after the
job's token. What the answers print goes nowhere.
"""

import ast
import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from symtable import symtable
from typing import Any

import psutil
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kit.exercises import Exercise
from kit.exercises.pieces import globals_of, registry

LONGEST = 300  # letters of a sentence: with its token it is less than what a pipe takes in one go, 4096 bytes
LARGEST_FILE = 2**28  # bytes
FEWEST = 8  # statements: a shorter answer is often the same as the kit's because there is little to choose
UNREADABLE = (SyntaxError, ValueError, MemoryError, RecursionError)  # what parsing a text may end in


class Shell(InteractiveShell):
    """What runs a kernel's cells, without the kernel: magics, `display` and `get_ipython()` work."""

    def ask_exit(self) -> None:
        """A cell's `exit()` ends nothing."""


class Statement:
    """One statement at the top level of a cell, with the names that it binds and those that it takes from elsewhere."""

    def __init__(self, cell: int, node: ast.stmt):
        self.cell, self.node, self.text = cell, node, ast.unparse(node)
        symbols = symtable(self.text, "cell", "exec").get_symbols()
        self.imports = {symbol.get_name() for symbol in symbols if symbol.is_imported()}
        self.binds = {symbol.get_name() for symbol in symbols if symbol.is_assigned()} | self.imports
        self.changes, self.uses = set[str](), set(globals_of(self.text))
        self.is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not self.is_definition:
            parts = [each for each in ast.walk(node) if isinstance(each, ast.Attribute | ast.Subscript | ast.AugAssign)]
            self.changes = {root_of(each) for each in parts if isinstance(getattr(each, "ctx", ast.Store()), ast.Store)}
            self.uses |= self.changes | (self.binds & loaded(node))

    def defines(self, name: str) -> bool:
        named = isinstance(getattr(self.node, "value", None), ast.Lambda) and name in self.binds
        return named or any(isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name for n in blocks(self.node))

    def is_unbound_import(self) -> bool:
        """Whether it brings names, or rules, that no text names: `from m import *`, `from __future__ import ...`."""
        node = self.node
        return isinstance(node, ast.ImportFrom) and (node.module == "__future__" or node.names[0].name == "*")

    def is_check(self) -> bool:
        """`exercises.NAME.check(...)` or `.hint()` or `.solution()`, or `pieces()`."""
        return bool(re.match(r"exercises\.\w+\.(check|hint|solution)\(|pieces\(\)$", self.text))


def blocks(node: ast.AST) -> Iterator[ast.AST]:
    """The statement, and those inside of its `if`, `try` or `with`, but not inside of definitions."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.stmt | ast.excepthandler | ast.match_case):
                yield from blocks(each)


def root_of(node: ast.AST) -> str:
    """`a` of `a`, `a.b`, `a[0].b` and `a.b += 1`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.AugAssign):
        node = node.target if isinstance(node, ast.AugAssign) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def loaded(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def statements_of(cells: Iterable[str]) -> tuple[list[Statement], list[tuple[str, str]]]:
    """Those of all cells, in order, IPython's own commands turned into Python; and the cells that are no Python, each
    with the reason."""
    found, unreadable = [], []
    for number, cell in enumerate(cells):
        try:
            python = TransformerManager().transform_cell(re.sub(r"\A\s*%%.*", "", cell))  # %%time, say
            found += [Statement(number, node) for node in ast.parse(python).body]
        except UNREADABLE as error:
            unreadable.append((cell, f"{type(error).__name__}: {error}".replace("<unknown>, ", "")))
    imported = set[str]().union(*(each.imports for each in found))
    for each in found:
        each.binds |= each.changes - imported  # `Net.forward = f` makes another Net; of a library it would be for all
    return found, unreadable


def has_dots(statement: Statement) -> bool:
    """Whether a blank's `...` still stands in it."""
    constants = [each.value for each in ast.walk(statement.node) if isinstance(each, ast.Expr)]
    return any(isinstance(each, ast.Constant) and each.value is ... for each in constants)


def answer_cell(statements: list[Statement], name: str) -> int | None:
    """The number of the last cell that defines the name; of a blank and an answer in another cell the answer's."""
    defining = [each for each in statements if each.defines(name)]
    written = [each for each in defining if not has_dots(each)]
    return (written or defining)[-1].cell if defining else None


def name_of_answer(statements: list[Statement], name: str) -> str:
    """The exercise's name; where at most a blank has it and the check is given another definition, that one's."""
    if any(each.defines(name) and not has_dots(each) for each in statements):
        return name
    given = re.findall(rf"^exercises\.{name}\.check\((\w+)\)$", "\n".join(each.text for each in statements), re.M)
    return next((each for each in given[::-1] if answer_cell(statements, each) is not None), name)


def needed(statements: list[Statement], cell: int) -> list[str]:
    """What must run before a cell: for each name that it uses, the last statement above that binds it (else the last
    below, for functions are looked up when they are called), and what that needs in turn; so no training runs."""
    own = [each for each in statements if each.cell == cell and not each.is_check()]
    bound = set[str]().union(*(each.binds for each in own))
    start = statements.index(own[0])
    found = {n for n, each in enumerate(statements) if each.is_unbound_import() and n < start}
    todo = [(name, start) for each in own for name in each.uses - (bound if each.is_definition else set())]
    while todo:
        name, before = todo.pop()
        binding = [n for n, each in enumerate(statements) if name in each.binds and each.cell != cell]
        n = max((n for n in binding if n < before), default=max(binding, default=None))
        if n is not None and n not in found:
            found.add(n)
            todo += [(used, start if statements[n].is_definition else n) for used in statements[n].uses]
    return [statements[n].text for n in sorted(found)]


class Plain(ast.NodeTransformer):
    """A definition without that in which a copy may differ: docstrings, annotations, names of locals."""

    def __init__(self, tree: ast.AST):
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.locals = stored | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        self.numbers: dict[str, str] = {}

    def number(self, name: str) -> str:
        return self.numbers.setdefault(name, f"_{len(self.numbers)}") if name in self.locals else name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.number(node.arg))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign | None:
        return ast.Assign([self.visit(node.target)], self.visit(node.value)) if node.value else None

    def visit_FunctionDef(self, node: Any) -> Any:
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    visit_ClassDef = visit_FunctionDef


def plain(text: str) -> tuple[str, int]:
    """A definition's text as `Plain` leaves it, and of how many statements it is."""
    (tree,) = ast.parse(textwrap.dedent(text).replace("@staticmethod\n", "")).body
    tree.name = ""  # type: ignore[attr-defined]
    tree = Plain(tree).visit(tree)
    return ast.dump(tree), sum(isinstance(each, ast.stmt) for each in ast.walk(tree))


def as_the_kit(text: str, exercise: Exercise) -> bool:
    """Whether a definition of some length is the kit's own but for names of locals and comments."""
    with contextlib.suppress(OSError, TypeError, *UNREADABLE):  # a sealed copy has no texts
        kits = [exercise.answer, *([pkgutil.resolve_name(kit)] if (kit := getattr(exercise, "kit", "")) else [])]
        written, length = plain(text)
        return length >= FEWEST and any(written == plain(inspect.getsource(each))[0] for each in kits)
    return False


def examine(exercise: Exercise, cells: list[str]) -> dict:
    """How many steps of the exercise the notebook's answer has right, what is wrong, and whether it is the kit's."""
    statements, unreadable = statements_of(cells)
    name = name_of_answer(statements, exercise.name)
    cell = answer_cell(statements, name)
    if cell is None:
        reasons = [reason for cell, reason in unreadable if re.search(rf"^\s*(def|class) {name}\b", cell, re.MULTILINE)]
        why = f"its cell cannot be read ({reasons[-1]})" if reasons else f"no cell defines {name}"
        return {"right": 0, "problem": f"{why}."}
    own = [each for each in statements if each.cell == cell and not each.is_check()]
    definitions = [each for statement in own for each in blocks(statement.node) if getattr(each, "name", "") == name]
    copied = bool(definitions) and as_the_kit(ast.unparse(definitions[-1]), exercise)
    shell = Shell.instance()
    before = [error_of(shell, text) for text in needed(statements, cell)]
    stopped = error_of(shell, "\n".join(each.text for each in own))
    problem: str | None
    right, problem = 0, f"its cell stopped with {stopped}"
    if name in shell.user_ns:
        try:
            right, problem = exercise.examine(shell.user_ns[name])
        except BaseException as error:  # KeyboardInterrupt, say, which `examine` lets through
            right, problem = 0, f"it stopped with {type(error).__name__}: {error}"
    if problem is not None and any(before):
        problem += f" (What it needs from other cells stopped with {next(filter(None, before))}.)"
    return {"right": right, "problem": problem and problem[:LONGEST], "as_the_kit": copied}


def error_of(shell: Shell, text: str) -> str:
    """Runs a cell; -> what it stopped with, if with anything."""
    done = shell.run_cell(text)
    error = done.error_before_exec or done.error_in_exec
    return f"{type(error).__name__}: {error}" if error else ""


def limit(memory: int, processes: int) -> None:
    """From here on this process is refused more memory than that beyond what it has, large files, and, unless it is
    root's, to start more when its user has so many; and it waits for others, for those that watch it among them."""
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):  # Windows has none, a Mac not all
        import resource

        os.nice(19)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def adopt_orphans() -> None:
    """What a child leaves running becomes a child of this process, which can then find and end it (Linux)."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_children() -> None:
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1)


def attend(exercise: Exercise, job: dict, say: Callable[..., None]) -> None:
    """Examines one answer, in an empty folder, and ends this process."""
    own, leave = os.getpid(), os._exit  # an answer may fork, or put something else in the place of `os._exit`
    try:
        folder = os.path.join(os.environ["HOME"], exercise.name)
        os.makedirs(folder, exist_ok=True)  # a home that an earlier answer has deleted too
        os.chdir(folder)
        limit(job["memory"], job["processes"])
        found = examine(exercise, job["cells"])
        if os.getpid() == own:
            say(exercise=exercise.name, **found)
    finally:
        leave(0)


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    channel, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)

    def say(write=os.write, dumps=json.dumps, **what) -> None:
        write(channel, f"{job['token']} {dumps(what)}\n".encode())

    module = importlib.import_module(f"kit.exercises.{job['module']}")
    exercises = {each.name: each for each in vars(module).values() if isinstance(each, Exercise)}
    registry()  # what `take` imports: here once, not for each answer
    Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    if job["forks"]:
        adopt_orphans()
    say(ready=True)
    for name in job["exercises"]:
        say(begins=name)
        if not job["forks"]:
            attend(exercises[name], job, say)
        child = os.fork()
        if child == 0:
            attend(exercises[name], job, say)
        _, status = os.waitpid(child, 0)
        end_children()
        say(ended=name, status=os.waitstatus_to_exitcode(status))
    os._exit(0)  # at once: clearing PyTorch away takes a second


if __name__ == "__main__":
    main()
