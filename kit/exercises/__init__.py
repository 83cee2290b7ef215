"""Exercises: a blank to fill in, a check that goes step by step, hints, a solution. One file a notebook.

`pieces.py` holds those whose answers become the reader's own network; `solutions/` holds these answers.
"""

import inspect
import textwrap
from collections.abc import Callable

import torch
from torch import Tensor

from . import sealed


class Exercise:
    """One exercise. A file of this folder subclasses it, and the notebook uses the one instance.

    A subclass has `hints`, from a nudge to the algorithm; a static method `answer`, the solution, and the `name` that
    it has in the notebook; and either `problem(attempt)`, which runs the attempt and returns a sentence that says what
    is wrong and where, or None when all is right, or several such methods in `steps`, each under the sentence that is
    true when it finds nothing. While they run, PyTorch's random numbers are others at every call; afterwards they go on
    as if none had been drawn.
    """

    hints: tuple[str, ...]
    answer: Callable
    name: str
    steps: dict[str, Callable]
    _next_hint = 0

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "problem") and "steps" not in vars(cls):
            cls.steps = {"": cls.problem}

    def examine(self, attempt) -> tuple[int, str | None]:
        """How many steps the attempt has right, and what is wrong with the next, None if there is none."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.seed()
            for nr_right, step in enumerate(self.steps.values()):
                try:
                    problem = step(self, attempt)
                except (Exception, SystemExit) as error:  # an attempt may fail in any way; the notebook goes on
                    problem = f"it stopped with {type(error).__name__}: {error}"
                if problem is not None:
                    return nr_right, problem
        return len(self.steps), None

    def verdict(self, attempt) -> str:
        """What is right so far, a line a step, and what differs and where."""
        return self.told(*self.examine(attempt))

    def told(self, nr_right: int, problem: str | None) -> str:
        """What `examine` has found, as the reader is told it."""
        of = f" {nr_right + 1} of {len(self.steps)}" if len(self.steps) > 1 else ""
        lines = [f"{n} of {len(self.steps)} is right: {text}." for n, text in enumerate(self.steps, 1) if text]
        return "\n".join([*lines[:nr_right], "Right." if problem is None else f"Not yet{of}: {problem}"])

    def check(self, attempt) -> None:
        """Prints the verdict."""
        print(self.verdict(attempt))

    def hint(self) -> None:
        """Prints the next hint; after the last one the first again."""
        number = self._next_hint % len(self.hints)
        self._next_hint = number + 1
        of = f"Hint {number + 1} of {len(self.hints)}: " if len(self.hints) > 1 else ""
        print(f"{of}{self.hints[number]}")

    def solution(self) -> None:
        """Prints code that passes the check when it is pasted into the exercise's cell; in a copy for students, where
        it is."""
        if sealed.is_sealed(type(self).__module__):
            print(sealed.WITHHELD)
            return
        text = textwrap.dedent(inspect.getsource(self.answer)).replace("@staticmethod\n", "").strip()
        print(text.replace("def answer(", f"def {self.name}(", 1))


def some(low: int, high: int) -> int:
    """A whole number from low to high, both among them."""
    return int(torch.randint(low, high + 1, ()))


def blank(value) -> str | None:
    """The sentence for an attempt that returned nothing, else None."""
    return "nothing was returned; replace the dots with your code." if value is None or value is ... else None


def wrong_shape(value, shape: tuple[int, ...]) -> str | None:
    """The sentence for a value that is no tensor of that shape, else None."""
    if not isinstance(value, Tensor):
        return f"a tensor of shape {tuple(shape)} was expected, not {type(value).__name__}."
    if tuple(value.shape) != tuple(shape):
        return f"the shape is {tuple(value.shape)}, but it should be {tuple(shape)}."
    return None


def no_number(value) -> str | None:
    """The sentence for a value that is no number (of Python's, of NumPy's, or a tensor of one), else None."""
    if sentence := blank(value):
        return sentence
    try:
        float("text" if isinstance(value, str) else value)
    except (TypeError, ValueError, RuntimeError):
        return f"a number was expected, not {type(value).__name__}."
    return None


def errors(value: Tensor, expected: Tensor, equal_nan: bool = False) -> Tensor:
    """How far each number is from what is expected, relative to numbers above 1; infinitely where one is NaN."""
    value, expected = value.detach().cpu().double(), expected.detach().cpu().double()
    equal = value == expected
    if equal_nan:
        equal |= value.isnan() & expected.isnan()
    error = (value - expected).abs() / expected.abs().clamp(min=1)
    return torch.where(equal, 0.0, error).nan_to_num(nan=torch.inf)


def difference(value: Tensor, expected: Tensor, tolerance: float = 1e-9) -> str | None:
    """Where a value differs most from what is expected of it, relative to numbers above 1; None if nowhere."""
    if sentence := blank(value) or wrong_shape(value, tuple(expected.shape)):
        return sentence
    error = errors(value, expected)
    if error.numel() == 0 or float(error.max()) <= tolerance:
        return None
    at = [int(index) for index in torch.unravel_index(error.argmax(), error.shape)]
    where = f"at {at} " if at else ""
    nr_wrong = int((error > tolerance).sum())
    found, right = (float(each[tuple(at)].detach().double()) for each in (value, expected))
    return f"{where}it is {found:.6g}, but it should be {right:.6g} ({nr_wrong} of {error.numel()} numbers differ)."


def explained(value, expected: Tensor, mistakes: dict[str, Tensor], tolerance: float = 1e-9) -> str | None:
    """What differs, and the sentence of the mistake that gives these very numbers."""
    problem = difference(value, expected, tolerance)
    if problem is None or blank(value) or wrong_shape(value, tuple(expected.shape)):
        return problem

    error = float(errors(value, expected, equal_nan=True).max())
    for sentence, mistaken in mistakes.items():
        if mistaken.shape != value.shape:
            continue
        # one that makes no difference here explains nothing
        if float(errors(value, mistaken, equal_nan=True).max()) < min(1e-5, error / 10):
            return f"{problem[:-1]}: {sentence}."
    unlike = value.dtype != expected.dtype and tolerance < 1e-6
    return f"{problem[:-1]}: yours are {value.dtype}; keep the inputs' {expected.dtype}." if unlike else problem


def close(a, b, tolerance: float = 1e-9) -> bool:
    """Whether two numbers, or tensors, or lists of numbers are the same but for rounding."""
    a, b = (torch.as_tensor(each, dtype=torch.float64) for each in (a, b))
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def reason(typical: dict, value: float, tolerance: float = 1e-9) -> str:
    """The mistake that leads to this value, after a colon; nothing if none of the typical ones does."""
    return next((f": {text}" for known, text in typical.items() if close(known, value, tolerance)), "")
