"""What the reader builds is kept, used while it is right, and left out when it is not."""

import textwrap
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from common import in_a_cell, pasted, said

from kit import platforms
from kit.exercises import masked_convolutions, pieces
from kit.exercises.solutions import masked_convolutions as solutions
from utils import UsageError

exercise = masked_convolutions.kernel_mask
GIVEN = {"torch": torch}
MINE = """
import numpy as np

OPEN = 1.0

def middle_of(size):
    return size // 2

def kernel_mask(kernel_size, kind):
    x = np.arange(kernel_size**2).reshape(kernel_size, kernel_size)
    middle = middle_of(kernel_size)
    return torch.from_numpy(np.where(x < x[middle, middle] + (kind == "B"), OPEN, 0.0)).float()
"""


def test_what_is_right_is_kept_and_taken(mine):
    assert said(pieces.take, "kernel_mask") == "kernel_mask: the kit's"
    assert pieces.take("kernel_mask") is solutions.kernel_mask
    verdict = said(exercise.check, in_a_cell(MINE, dict(GIVEN))["kernel_mask"])
    assert f"Right. Kept as {mine}/kernel_mask.py: from here on your kernel_mask is used." in verdict
    assert said(pieces.take, "kernel_mask") == "kernel_mask: yours"
    taken = pieces.take("kernel_mask")
    assert taken is not solutions.kernel_mask and torch.equal(taken(5, "A"), solutions.kernel_mask(5, "A"))
    assert "notebook 01  kernel_mask             yours\n" in said(pieces.pieces) + "\n"


def test_a_kept_piece_is_a_file_that_python_runs_as_it_stands(mine):
    said(exercise.check, in_a_cell(MINE, dict(GIVEN))["kernel_mask"])
    text = (mine / "kernel_mask.py").read_text()
    assert [line for line in text.splitlines() if "import" in line] == ["import numpy as np", "import torch"]
    alone: dict = {}
    exec(text, alone)
    assert alone["kernel_mask"](3, "B").sum() == 5


def test_another_right_answer_replaces_it_and_a_wrong_one_does_not(mine):
    said(exercise.check, in_a_cell(MINE, dict(GIVEN))["kernel_mask"])
    before = (mine / "kernel_mask.py").read_text()
    wrong = in_a_cell(MINE.replace("<", "<="), dict(GIVEN))["kernel_mask"]
    assert "Not yet" in said(exercise.check, wrong) and (mine / "kernel_mask.py").read_text() == before
    said(exercise.check, pasted(exercise, GIVEN))
    assert (mine / "kernel_mask.py").read_text() != before and said(pieces.take, "kernel_mask").endswith("yours")


@pytest.mark.parametrize(
    "text, why",
    [
        ("def kernel_mask(kernel_size, kind):\n    return None\n", "nothing was returned"),
        ("def kernel_mask(kernel_size, kind):\n    raise SystemExit\n", "it stopped with SystemExit"),
        ("def kernel_mask(\n", "SyntaxError"),
        ("def something_else(): ...\n", "KeyError"),
        ("raise OSError('no')\n", "OSError: no"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_kept_piece_that_no_longer_passes_is_named_and_left_out(mine, text, why):
    mine.mkdir()
    (mine / "kernel_mask.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = said(pieces.take, "kernel_mask")
    assert line.startswith("kernel_mask: the kit's, because yours ") and why in line and len(line.splitlines()) == 1
    assert pieces.take("kernel_mask") is solutions.kernel_mask
    assert line.removeprefix("kernel_mask: ") in said(pieces.pieces)


def test_a_piece_that_uses_what_stands_elsewhere():
    given = GIVEN | in_a_cell("def helper(size): return size // 2", {})
    source = exercise_source("middle = helper(kernel_size)")
    assert "Kept as" in said(exercise.check, in_a_cell(source, dict(given))["kernel_mask"])
    source = exercise_source("middle = state.setdefault('middle', kernel_size // 2) * 0 + kernel_size // 2")
    verdict = said(exercise.check, in_a_cell(source, GIVEN | {"state": {"a": torch.zeros(1)}})["kernel_mask"])
    why = "kernel_mask uses state, which is made outside of it; make it inside, or take an argument"
    assert verdict.endswith(f"Right. It is not kept: {why}.")


def exercise_source(middle: str) -> str:
    body = textwrap.dedent(said(exercise.solution))
    assert "middle = kernel_size // 2" in body
    return body.replace("middle = kernel_size // 2", middle)


def test_classes_without_methods_have_a_text():
    in_a_cell("class Pair: older = True\n")
    cell = "class Pair(NamedTuple):\n    a: Tensor\n    b: int = THREE\n\n@dataclass\nclass Data:\n    pair: Pair\n"
    names = {"NamedTuple": NamedTuple, "dataclass": dataclass, "Tensor": torch.Tensor, "THREE": 3}
    shown = in_a_cell(cell, names)
    f = in_a_cell("def f(x): return Data(Pair(x))\n", dict(shown))["f"]
    with pytest.raises(SyntaxError):
        in_a_cell("class Pair(:")
    alone: dict = {}
    exec(pieces.Source(f).text(), alone)
    assert alone["f"](1).pair == (1, 3)


def test_an_alias_and_a_constant_of_utils_are_imported():
    from utils.layers import Modulation
    from utils.mixture import MIN_LOG_SCALE

    source = "def f(modulation: Modulation):\n    return MIN_LOG_SCALE\n"
    f = in_a_cell(source, {"Modulation": Modulation, "MIN_LOG_SCALE": MIN_LOG_SCALE})["f"]
    imports = "from utils.layers import Modulation\nfrom utils.mixture import MIN_LOG_SCALE"
    assert pieces.Source(f).text() == f"{imports}\n\n\n{source}"


def test_a_lambda_and_another_name_are_told_kindly():
    assert "a definition is called kernel_mask here" in said(exercise.check, lambda size, kind: None)
    assert "a definition is called kernel_mask here" in said(exercise.check, torch.ones(3, 3))
    assert "there is nothing yet" in said(exercise.check, ...)


def test_classes_and_decorated_functions_and_ipython_commands_have_a_text():
    source = """
    %matplotlib inline
    import functools

    class Thing:
        size = 3

        def __init__(self):
            self.n = twice(self.size)

    @functools.cache
    def twice(n):
        !ls
        return 2 * n
    """
    source = textwrap.dedent(source)
    plain = source.replace("%matplotlib inline", "pass").replace("!ls", "pass")
    defined = in_a_cell(plain, {})
    text = pieces.Source(defined["Thing"]).text()
    assert text.startswith("import functools\n\n\n@functools.cache\ndef twice(n):") and "class Thing:" in text
    assert "@functools" in pieces.text_of(defined["twice"])


def test_only_names_from_outside_are_looked_up():
    source = "def f(a: Tensor) -> Tensor:\n    x = [y for y in a]\n    def g(): return x\n    return torch.stack(g())\n"
    assert set(pieces.globals_of(source)) == {"Tensor", "torch"}


def test_where_pieces_are_kept(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.delenv("PIXELCNN_RUNS", raising=False)
    assert pieces.folder() == pieces.KIT / "notebooks" / "mine"
    monkeypatch.setattr(platforms, "platform_name", lambda: "kaggle")
    assert pieces.folder() == platforms.KAGGLE_WORKING / "mine"
    monkeypatch.setattr(platforms, "platform_name", lambda: "colab")
    assert pieces.folder() == pieces.KIT / "notebooks" / "mine"
    monkeypatch.setattr(platforms, "COLAB_DRIVE", tmp_path)
    assert pieces.folder() == tmp_path / "pixelcnn-kit" / "mine"


def test_a_piece_of_an_earlier_kaggle_session_is_found(mine, monkeypatch, tmp_path):
    said(exercise.check, pasted(exercise, GIVEN))
    attached = tmp_path / "input" / "notebook" / "mine"
    attached.parent.mkdir(parents=True)
    mine.rename(attached)
    assert said(pieces.take, "kernel_mask") == "kernel_mask: the kit's"
    monkeypatch.setattr(platforms, "KAGGLE_INPUT", tmp_path / "input")
    assert said(pieces.take, "kernel_mask") == "kernel_mask: yours"


def test_a_folder_that_cannot_be_written_costs_a_sentence(mine):
    mine.write_text("a file where the folder should be")
    verdict = said(exercise.check, pasted(exercise, GIVEN))
    assert "Right. It is not kept: cannot save " in verdict


def test_an_unknown_piece_is_refused():
    with pytest.raises(UsageError, match="no notebook builds 'mask': choose from kernel_mask"):
        pieces.take("mask")


def test_the_kits_own_piece_is_locked_while_an_attempt_is_examined():
    from utils import layers

    class Shifted(pieces.Piece):
        hints = ("", "", "")
        kit = "utils.layers.DownShiftedConv2d"
        answer = staticmethod(layers.DownShiftedConv2d)
        steps = {"it can be made": lambda self, attempt: attempt(1, 1) and None}

    wrong = [
        "def DownShiftedConv2d(*channels): return layers.DownShiftedConv2d(*channels)",
        "def DownShiftedConv2d(*channels): return theirs(*channels)",
    ]
    given = {"layers": layers, "theirs": layers.DownShiftedConv2d}
    for source in wrong:
        namespace = in_a_cell(source, dict(given))
        assert "DownShiftedConv2d is the kit's own; write yours" in Shifted().verdict(namespace["DownShiftedConv2d"])
        assert namespace["theirs"] is layers.DownShiftedConv2d and isinstance(layers.DownShiftedConv2d, type)
    subclass = in_a_cell("class DownShiftedConv2d(theirs): pass", dict(given))["DownShiftedConv2d"]
    assert "this is the kit's own DownShiftedConv2d; write yours" in Shifted().verdict(subclass)
