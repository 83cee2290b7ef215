"""What holds for every exercise: its solution passes, the blank fails, typical wrong answers get a telling sentence."""

import contextlib
import io
import itertools
import linecache
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.exercises.pieces import Piece

cells = itertools.count()
IMPORTED = {"math": math, "torch": torch, "F": F, "Tensor": Tensor, "nn": nn}  # by every notebook


def said(function, *args) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        function(*args)
    return out.getvalue().strip()


def in_a_cell(source: str, namespace: dict | None = None) -> dict:
    """Runs the source as a notebook runs a cell: in `__main__`, and its text can be found. -> what is defined then."""
    name, namespace = f"<cell {next(cells)}>", {} if namespace is None else namespace
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace["__name__"] = "__main__"
    exec(compile(source, name, "exec"), namespace)
    return namespace


def pasted(exercise, given: dict | None = None):
    """What `solution()` prints, pasted into a cell of a notebook that has the names of `given` besides."""
    return in_a_cell(said(exercise.solution), IMPORTED | (given or {}))[exercise.name]


def check_exercise(exercise, blank, wrong: dict[str, object], given: dict | None = None) -> None:
    """`wrong`: a piece of the sentence that is expected -> the wrong answer, at least four. `given`: the names that its
    notebook has made or imported when it asks, besides `IMPORTED`."""
    piece = isinstance(exercise, Piece)
    verdict = said(exercise.check, pasted(exercise, given)).splitlines()
    assert verdict[-1].startswith("Right. Kept as ") if piece else verdict[-1] == "Right.", verdict
    assert len(verdict) == (len(exercise.steps) if len(exercise.steps) > 1 else 0) + 1
    assert "Not yet" in said(exercise.check, blank)
    assert len(wrong) >= 4
    for sentence, attempt in wrong.items():
        verdict = said(exercise.check, named(attempt, exercise.name) if piece else attempt)
        assert verdict.splitlines()[-1].startswith("Not yet") and sentence in verdict, verdict
    if piece:
        assert len(exercise.hints) == 3 and len(exercise.steps) >= 3
        assert "this is the kit's own" in said(exercise.check, exercise.answer)
    assert all(len(hint) > 20 for hint in exercise.hints)
    assert len({said(exercise.hint) for _ in exercise.hints}) == len(exercise.hints)


def named(attempt, name: str):
    """A wrong answer as a student hands it in: under the name that was asked for."""
    with contextlib.suppress(AttributeError):
        attempt.__name__ = name
    return attempt
