"""What holds for the exercises of every notebook, whoever wrote them."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from common import said

from kit import exercises
from kit.exercises import Exercise, explained
from kit.exercises.pieces import Piece

MODULES = [module.name for module in pkgutil.iter_modules(exercises.__path__) if not module.ispkg]
FOUND = [
    pytest.param(name, value, id=f"{module}.{name}")
    for module in MODULES
    for name, value in vars(importlib.import_module(f"kit.exercises.{module}")).items()
    if isinstance(value, Exercise)
]


def test_every_exercise_has_an_instance():
    for module in MODULES:
        namespace = vars(importlib.import_module(f"kit.exercises.{module}"))
        classes = {
            value
            for value in namespace.values()
            if inspect.isclass(value) and issubclass(value, Exercise) and value.__module__.endswith(f".{module}")
        }
        used = {base for value in namespace.values() if isinstance(value, Exercise) for base in type(value).__mro__}
        assert classes - used - {Piece} == set()


@pytest.mark.parametrize("name, exercise", FOUND)
def test_an_exercise_is_complete(name, exercise):
    assert isinstance(exercise.name, str) and exercise.name.isidentifier()
    assert isinstance(exercise, Piece) or exercise.name == name, "a small exercise is called as its instance"
    assert isinstance(exercise.hints, tuple), "a tuple of one ends in a comma"
    assert exercise.hints and all(isinstance(hint, str) and hint.strip() for hint in exercise.hints)
    assert exercise.steps and all(isinstance(text, str) and callable(step) for text, step in exercise.steps.items())
    assert all(text for text in exercise.steps) or len(exercise.steps) == 1
    assert isinstance(inspect.getattr_static(exercise, "answer"), staticmethod)
    assert type(exercise).__doc__


@pytest.mark.parametrize("name, exercise", FOUND)
def test_a_solution_has_the_readers_name(name, exercise):
    first, *_ = [line for line in said(exercise.solution).splitlines() if line.startswith(("def ", "class "))]
    assert first.partition(" ")[2].startswith((f"{exercise.name}(", f"{exercise.name}:"))


@pytest.mark.parametrize("nonsense", [..., None, 3, "text", lambda *args: 3, lambda *args: "text", lambda *args: []])
@pytest.mark.parametrize("name, exercise", FOUND)
def test_nonsense_costs_a_sentence(name, exercise, nonsense):
    verdict = said(exercise.check, nonsense)
    assert "Not yet" in verdict.splitlines()[-1] and len(verdict.splitlines()) == 1


def test_a_mistake_is_named_where_the_value_is_nearer_to_it_than_to_what_is_right():
    def said_of(value, mistaken):
        return explained(value, right, {"because": mistaken}) or ""

    right = torch.tensor([600.0, 2.0], dtype=torch.float64)
    mistaken = torch.tensor([600.004, 2.0], dtype=torch.float64)  # only 7e-6 of it beside
    assert said_of(mistaken, mistaken).endswith("(1 of 2 numbers differ): because.")
    assert said_of(mistaken.float(), mistaken).endswith(": because."), "rounded"
    assert said_of(right / 0 * 0, right / 0 * 0).endswith("(2 of 2 numbers differ): because.")
    assert said_of(right + 1, mistaken).endswith("(2 of 2 numbers differ).")
    assert said_of(right + 1e-5, right + 1e-9).endswith("(2 of 2 numbers differ)."), "it makes no difference here"
    assert said_of(right, right) == ""
