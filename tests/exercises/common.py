"""What holds for every exercise: its solution passes, the blank fails, typical wrong answers get a telling sentence."""

import contextlib
import io


def said(function, *args) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        function(*args)
    return out.getvalue().strip()


def check_exercise(exercise, blank, wrong: dict[str, object]) -> None:
    """`wrong`: a piece of the sentence that is expected -> the wrong answer; at least two."""
    assert said(exercise.check, exercise.answer) == "Right."
    assert said(exercise.check, blank).startswith("Not yet: ")
    assert len(wrong) >= 2
    for sentence, attempt in wrong.items():
        verdict = said(exercise.check, attempt)
        assert verdict.startswith("Not yet: ") and sentence in verdict, verdict
    assert len(said(exercise.hint)) > 20
    assert "def " in said(exercise.solution) or "=" in said(exercise.solution)
