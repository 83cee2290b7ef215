"""Exercises: a blank to fill in, a check that answers in a sentence, a hint, a solution. One file a notebook."""

import inspect
import textwrap
from collections.abc import Callable


class Exercise:
    """One exercise. A file of this folder subclasses it, and the notebook uses the one instance.

    A subclass has a `hint_text`, a static method `answer` (the solution) and `problem(attempt)`, which runs the
    attempt and returns a sentence that says what is wrong and where, or None when all is right.
    """

    hint_text: str
    answer: Callable

    def problem(self, attempt) -> str | None:
        raise NotImplementedError

    def check(self, attempt) -> None:
        """Says whether the attempt is right, or what differs and where."""
        print(self.verdict(attempt))

    def verdict(self, attempt) -> str:
        try:
            problem = self.problem(attempt)
        except Exception as error:  # an attempt may fail in any way; the student is told how, the notebook goes on
            problem = f"it stopped with {type(error).__name__}: {error}"
        return "Right." if problem is None else f"Not yet: {problem}"

    def hint(self) -> None:
        print(self.hint_text)

    def solution(self) -> None:
        """Shows code that passes the check."""
        print(textwrap.dedent(inspect.getsource(self.answer)).replace("@staticmethod\n", "").strip())


def blank(value) -> str | None:
    """The sentence for an attempt that returned nothing, else None."""
    return "nothing was returned; replace the dots with your code." if value is None or value is ... else None


def wrong_shape(value, shape: tuple[int, ...]) -> str | None:
    """The sentence for a value that is no tensor of that shape, else None."""
    if not hasattr(value, "shape"):
        return f"a tensor of shape {tuple(shape)} was expected, not {type(value).__name__}."
    if tuple(value.shape) != tuple(shape):
        return f"the shape is {tuple(value.shape)}, but it should be {tuple(shape)}."
    return None
