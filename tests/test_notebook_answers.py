"""Every exercise of the notebooks: its cell is as it should be, and nothing above it gives its answer away."""

import ast
import builtins
import importlib
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from kit.exercises import Exercise, pieces

sys.path.insert(0, str(Path(__file__).parent / "exercises"))
from common import said
from test_notebooks import NOTEBOOKS, exercise_of


class Asked(NamedTuple):
    """An exercise where a notebook asks it."""

    notebook: str
    name: str  # the exercise's, in its module
    argument: str  # what the reader hands to the check
    module: object
    cell: str
    above: list  # the cells above it

    @property
    def exercise(self) -> Exercise:
        return getattr(self.module, self.name)


def all_asked() -> list[Asked]:
    found = []
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        module = None
        for n, cell in enumerate(cells):
            if cell.cell_type == "code":
                for name in re.findall(r"^from kit\.exercises import (\w+) as exercises$", cell.source, re.MULTILINE):
                    module = importlib.import_module(f"kit.exercises.{name}")
                if line := exercise_of(cell.source):
                    found.append(Asked(path.stem, line[1], line[2], module, cell.source, cells[:n]))
    return found


ASKED = all_asked()
each = pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.notebook[:2]}-{asked.name}")


def parsed(source: str) -> ast.Module:
    """The tree of a cell; IPython's own commands are left out."""
    return ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()))


def names_made(source: str) -> set[str]:
    """The names that a cell imports, assigns or defines."""
    made = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
    return made


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def is_blank(definition: ast.AST) -> bool:
    """Whether there are dots in the place of code."""
    dots = (node.value for node in ast.walk(definition) if isinstance(node, ast.Expr))
    return any(isinstance(value, ast.Constant) and value.value is ... for value in dots)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def telling_lines(solution: str) -> list[str]:
    """The lines of a solution that say how it is done: no docstrings, comments, signatures and no trivial ones."""
    tree = ast.parse(solution)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and is_text(body[0].value):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    lines = [line.strip() for line in ast.unparse(tree).splitlines()]
    trivial = re.compile(r"@|def |class |import |from |super\(\)\.__init__|return \w+$")
    return [line for line in lines if len(line) >= 20 and not trivial.match(line)]


def given_away(exercise: Exercise, cells: list) -> list[str]:
    """What the cells give away of the answer: definitions that have its name, and lines, if they are half of it."""
    found = []
    text = []
    for cell in cells:
        text.append(cell.source)
        if cell.cell_type == "code":
            tree = parsed(cell.source)
            text.append(ast.unparse(tree))  # spelled as `telling_lines` spells
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == exercise.name:
                    found += [] if is_blank(node) else [f"{node.name} is defined"]
        else:
            for code in re.findall(r"```(?:python)?\n(.*?)```", cell.source, re.DOTALL):
                text.append(code)
    above = in_one_line("\n".join(text))
    lines = telling_lines(said(exercise.solution))
    shown = [line for line in lines if in_one_line(line) in above]
    return found + (shown if len(shown) * 2 >= max(len(lines), 1) else [])


def test_there_are_exercises_in_every_notebook_but_the_report_and_the_project():
    assert {asked.notebook for asked in ASKED} == {path.stem for path in NOTEBOOKS} - {"08_report", "09_project"}
    checks = [
        len(re.findall(r"^exercises\.\w+\.check\(", cell.source, re.MULTILINE))
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    ]
    assert sum(checks) == len(ASKED) and set(checks) <= {0, 1}, "one check a cell, of one name"


@each
def test_a_cell_holds_the_blank_its_check_and_nothing_else(asked):
    assert asked.argument == asked.exercise.name
    tree = parsed(asked.cell)
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert asked.argument in [node.name for node in definitions]
    blank = next(node for node in definitions if node.name == asked.argument)
    assert is_blank(blank), "the blank is filled"
    rest = [ast.unparse(node) for node in tree.body if node not in definitions]
    assert rest == [f"exercises.{asked.name}.check({asked.argument})"], rest
    assert re.search(rf"^# exercises\.{asked.name}\.hint\(\)$", asked.cell, re.MULTILINE)
    assert re.search(rf"^# exercises\.{asked.name}\.solution\(\)$", asked.cell, re.MULTILINE)


@each
def test_what_a_solution_uses_is_there_when_it_is_pasted(asked):
    solution = textwrap.dedent(said(asked.exercise.solution))
    there = set(dir(builtins)).union(*(names_made(cell.source) for cell in asked.above if cell.cell_type == "code"))
    missing = set(pieces.globals_of(solution)) - there - names_made(solution)
    assert not missing, f"the cells above neither import nor make {', '.join(sorted(missing))}"


@each
def test_no_answer_stands_in_a_cell_above_it(asked):
    assert not given_away(asked.exercise, asked.above)


def test_what_would_give_an_answer_away_is_seen():
    from kit.exercises import sample_gallery

    exercise = sample_gallery.frechet
    solution = said(exercise.solution)
    as_code, as_text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    assert "frechet is defined" in given_away(exercise, [as_code(solution)])
    assert len(given_away(exercise, [as_code(solution.replace("def frechet", "def other"))])) == 4
    assert len(given_away(exercise, [as_text(f"```python\n{solution}\n```")])) == 4
    halved = "\n".join(solution.splitlines()[:-1])
    assert len(given_away(exercise, [as_text(halved)])) == 3
    assert not given_away(exercise, [as_code("def frechet(mean1, cov1, mean2, cov2):\n    ...")])
    assert not given_away(exercise, [as_text("values, vectors = torch.linalg.eigh(cov1)")])
