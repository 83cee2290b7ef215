"""The pages that people read: short where they should be, with links that lead somewhere, commands that can be typed,
and the numbers that were measured."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from test_quoted_numbers import tables

from benchmarks import curves
from kit.__main__ import build_parser
from kit.exercises import Exercise
from kit.exercises.pieces import NOTEBOOKS
from notebooks import build
from utils.training import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "RESULTS.md", "TEACHING.md")
PAGES += tuple(sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("[!.]*/*.md")))
MOST_WORDS = 1_200  # of the first page
# words that a native teacher of the field would not use
UNUSUAL = "by lot|lots|mends?|is nothing to it|belongs? into|pushed about|has not got|brings alone|by heart"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """Without code, pictures and addresses."""
    text = re.sub(r"```.*?```|`[^`]*`|<[^>]*>", " ", text_of(page), flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def anchors(page: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_page_is_short():
    assert len(text_of("README.md").split()) <= MOST_WORDS


def test_the_first_page_names_every_notebook_and_how_to_get_them():
    page = text_of("README.md")
    named = re.findall(r"^\| \[(\d\d) [^]]*\]\(notebooks/([^)]*)\) \|[^|]*\| [\d½]+ \|$", page, re.MULTILINE)
    assert named == [(path.name[:2], path.name) for path in sorted(build.FOLDER.glob("[0-9]*.ipynb"))]
    assert f"git clone https://github.com/{build.REPOSITORY}\ncd {build.REPOSITORY.partition('/')[2]} " in page
    targets = re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE)
    assert set(re.findall(r"\bmake (?!sets)([a-z-]+)", page)) <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text_of(page)):
        address = urllib.parse.urlsplit("".join(link))
        if address.scheme:
            assert address.scheme == "https", address.geturl()
            continue
        target = (ROOT / page).parent / address.path if address.path else ROOT / page
        target = target / "README.md" if target.is_dir() else target
        assert target.exists(), f"{page} links to {address.path}"
        if address.fragment:
            assert address.fragment in anchors(str(target.resolve().relative_to(ROOT))), address.geturl()


def commands_of(page: str) -> list[list[str]]:
    """The lines `python -m kit ...` in code, and a preset's or an option's name alone as it stands there."""
    text = text_of(page).replace("\\\n", " ")
    code = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    lines = [line for part in code for line in part.splitlines()]
    found = [re.search(r"(?:python|-m --) (?:-m )?kit ([a-z].*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_typed(page, capsys):
    for words in commands_of(page):
        words = [word for word in words if word != "SETTING"]
        if words[0] == "train" and "--run" not in words:
            words += ["--run", "mine"]  # a model card's; its run may be called anything
        try:
            build_parser().parse_args(words)
        except SystemExit as leaving:
            assert leaving.code == 0, f"{page}: {words}: {capsys.readouterr().err}"


def test_commands_are_found():
    assert ["evaluate", "--checkpoint", "mine", "--dataset", "cpen455"] in commands_of("README.md")
    assert ["data", "cpen455"] in commands_of("README.md") and len(commands_of("kit/README.md")) > 5


def test_every_preset_is_explained():
    assert set(
        re.findall(r"^\| `(\w+)` \|", text_of("kit/README.md").partition("\n## Training")[2], re.MULTILINE)
    ) >= set(PRESETS)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_in_plain_words(page):
    assert re.findall(rf"\b(?:{UNUSUAL})\b", " ".join(prose_of(page).split()), re.IGNORECASE) == []


# the page for teachers


def teaching(heading: str) -> list[dict[str, str]]:
    """The tables under a heading of the page."""
    part = text_of("TEACHING.md").partition(f"# {heading}\n")[2]
    return tables(re.split(r"^#", part, maxsplit=1, flags=re.MULTILINE)[0])


def cells_of(number: str, kind: str) -> str:
    """What the notebook of that number says in its cells of one kind, `markdown` or `code`."""
    (path,) = build.FOLDER.glob(f"{number}_*.ipynb")
    return "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == kind)


def exercises() -> dict[tuple[str, str], Exercise]:
    """By the notebook's number and the name of the reader's definition, in the order of the notebooks."""
    found = {}
    for n, name in enumerate(("quickstart", *NOTEBOOKS)):
        module = importlib.import_module(f"kit.exercises.{name}")
        checked = re.findall(r"^exercises\.(\w+)\.check\((\w+)\)$", cells_of(f"{n:02d}", "code"), re.MULTILINE)
        found |= {(f"{n:02d}", blank): getattr(module, exercise) for exercise, blank in checked}
    return found


def texts_in(value) -> Iterator[str]:
    """Every text that a value holds: a function in its code, a collection in its entries."""
    value = getattr(value, "__func__", value)  # a static method's
    if isinstance(value, str):
        yield value.replace("`", "")
    elif isinstance(value, types.FunctionType):
        yield from texts_in(value.__code__.co_consts)
    elif isinstance(value, types.CodeType):
        yield from texts_in(value.co_consts)
    elif isinstance(value, dict | list | tuple):
        for entry in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from texts_in(entry)


def sentences_of(exercise: Exercise) -> list[str]:
    """What its check may say: the texts in its classes, and in the functions and tables beside them."""
    own = [value for kind in type(exercise).__mro__ for name, value in vars(kind).items() if name != "hints"]
    beside = vars(sys.modules[type(exercise).__module__]).items()
    functions_and_tables = (types.FunctionType, dict, list)
    own += [value for name, value in beside if isinstance(value, functions_and_tables) and not name.startswith("__")]
    return [*texts_in(own)]


def test_teachers_find_every_exercise_with_its_points_and_what_its_check_says():
    rows, known = teaching("What each exercise trains"), exercises()
    found = [(row["notebook"], row["exercise"], int(row["points"])) for row in rows]
    assert found == [(*key, len(exercise.steps)) for key, exercise in known.items()]
    for row in rows:
        said = sentences_of(known[row["notebook"], row["exercise"]])
        for part in row["says, for example"].strip('"').split("…"):
            assert any(part.strip() in sentence for sentence in said), row


def hours_of(text: str) -> float:
    return float(text.replace("½", ".5"))


def test_weeks_add_up():
    """Their hours and points are those of their notebooks, and a notebook's hours those of the first page."""
    on_the_first = re.findall(r"^\| \[(\d\d) .*\| ([\d½]+) \|$", text_of("README.md"), re.MULTILINE)
    hours = {row["notebook"][:2]: row["hours"] for row in teaching("Notebooks, hours, prerequisites")}
    assert len(on_the_first) >= 9 and on_the_first == [(number, hours[number]) for number, _ in on_the_first]
    weeks = teaching("Four weeks")
    assert re.findall(r"\d\d", " ".join(row["notebooks"] for row in weeks)) == [f"{n:02d}" for n in range(9)]
    for row in weeks:
        numbers = re.findall(r"\d\d", row["notebooks"])
        points = (len(exercise.steps) for (number, _), exercise in exercises().items() if number in numbers)
        assert int(row["points"]) == sum(points)
        assert hours_of(row["hours"]) == sum(hours_of(hours[number]) for number in numbers)


def test_figures_and_exercises_that_teachers_are_sent_to_are_there():
    page = text_of("TEACHING.md")
    named = re.findall(r"\b(\d\d), (Figure|Exercise)s? (\d+(?:(?:, | and )\d+)*)", page)
    assert len(named) == len(re.findall(r"\b(?:Figure|Exercise)s? \d", page)) > 30, "each after its notebook"
    for notebook, kind, numbers in named:
        heads = re.findall(rf"^\*+{kind}s? (\d+)(?: and (\d+))?", cells_of(notebook, "markdown"), re.MULTILINE)
        assert {*re.findall(r"\d+", numbers)} <= {number for head in heads for number in head}, (notebook, numbers)
    for row in teaching("Misconceptions"):
        for heading in re.findall(r'"([^"]+)"', row["look at"]):
            assert heading in cells_of(row["look at"][:2], "markdown"), heading


# the curves


def test_the_curves_are_those_of_the_weights(tmp_path):
    """Each run has the epochs of the model card, and the last one ends at the shipped weights' scores."""
    about = json.loads(curves.NUMBERS.read_text(encoding="utf-8"))
    assert [run["epoch"][-1] for run in about["runs"]] == [20, 24]
    for run in about["runs"]:
        assert len(run["epoch"]) == len(run["bits per dimension"]) == len(run["accuracy, %"])
    (row,) = (line for line in text_of("RESULTS.md").splitlines() if line.startswith("| `cpen455` | 5,178,456 |"))
    bits, accuracy = (float(re.match(r"[\d.]+", cell.strip())[0]) for cell in row.split("|")[4:6])
    last = about["runs"][-1]
    assert abs(last["bits per dimension"][-1] - bits) < 0.002, "in bfloat16"
    assert abs(last["accuracy, %"][-1] - accuracy) < 0.5, "in bfloat16 two pictures of 519 are named otherwise"
    command = [sys.executable, "-m", "benchmarks.curves", "--out", str(tmp_path / "curves.png")]
    subprocess.run(command, cwd=ROOT, check=True)
    from PIL import Image

    with Image.open(tmp_path / "curves.png") as drawn, Image.open(curves.FIGURE) as shipped:
        assert drawn.size == shipped.size and drawn.width >= 1350, "9 inches of 150 dots"


# the numbers


def quality(section: str) -> list[dict]:
    """A section of benchmarks/quality.json, by the beginning of its name."""
    sections = json.loads(text_of("benchmarks/quality.json"))["sections"]
    (rows,) = (rows for name, rows in sections.items() if name.startswith(section))
    return rows


def rows_under(heading: str) -> list[dict[str, str]]:
    """The tables below a heading of RESULTS.md."""
    part = text_of("RESULTS.md").partition(f"# {heading}\n")[2]
    return tables(re.split(r"^#", part, maxsplit=1, flags=re.MULTILINE)[0])


def agree(cell: str, value: float | None, percent: bool = False) -> bool:
    """Whether a cell is the value, rounded as it is there; an empty one is None."""
    if value is None or cell == "":
        return value is None and cell == ""
    quoted = cell.split()[0]
    return abs(float(quoted) - value * (100 if percent else 1)) <= 0.5 * 10 ** -len(quoted.partition(".")[2]) + 1e-9


def test_pictures_of_no_class_are_as_measured():
    shown, found = rows_under("Pictures of no class"), quality("pictures of no class")
    assert [row["pictures"] for row in shown] == [row["pictures"] for row in found], "all of them"
    for row, true in zip(shown, found, strict=True):
        assert row["count"] == str(true["count"])
        names = {"bits per dimension": "bits/dim", "CNN, largest softmax": "CNN, largest softmax"}
        for column, name in (names | {"log p(x)": "log p(x)", "typicality": "typicality"}).items():
            assert agree(row[column], true[name]), (row, column)


def test_half_missing_is_as_measured():
    shown = {tuple(row.values())[1]: row for row in rows_under("Half of the picture is missing")}
    for true in quality("half covered"):
        name = true["model"]
        assert agree(shown["whole pictures"][name], true["whole"], percent=True)
        for how, column in (
            ("taken as it is", "grey taken as it is"),
            ("only the visible rows summed", "grey left out"),
        ):
            cell = next(row[name] for words, row in shown.items() if true["missing"] in words and how in words)
            assert agree(cell, true[column], percent=True), (name, how)


def test_moved_and_drawn_pictures_are_as_measured():
    for row, true in zip(rows_under("Pictures moved to the right"), quality("moved to the right"), strict=True):
        assert agree(row["bits per dimension"], true["bits/dim"])
        assert all(agree(row[name], true[name], percent=True) for name in ("CNN", "cpen455"))
    shown = [row for row in rows_under("Its pictures, judged by that CNN") if "class" in row]
    for row, true in zip(shown, quality("recognised by the CNN"), strict=True):
        assert row["class"] == true["class"]
        assert all(agree(row[kind], true[kind], percent=True) for kind in ("drawn", "guided", "validation"))


def test_paired_tests_are_as_measured():
    """Each names how many pictures the first and the second alone get right, and p."""
    found = {(row["A"], row["B"]): row for row in quality("paired tests")}
    first = {
        row["setting"].partition(":")[0]: row["right alone, p"] for row in rows_under("Settings of the classifier")
    }
    shown = {
        ("cpen455 --mirror", "cpen455"): first["--mirror"],
        ("cpen455 --calibrate 519", "cpen455"): first["--calibrate 519"],
        ("cpen455-hybrid", "cpen455"): first["cpen455-hybrid"],
    }
    for row in rows_under("Against a trained classifier"):
        if name := row.get("paired test on the same 519 pictures"):
            cnn, _, other = name.partition(" against ")
            right, wrong = row["right alone"].split(" to ")
            shown[other, cnn] = f"{wrong} to {right}, {row['p']}"
    assert shown.keys() == found.keys()
    for pair, true in found.items():
        counts, _, p = shown[pair].partition(", ")
        assert counts == f"{true['A alone right']} to {true['B alone right']}" and agree(p, true["p"]), pair
    hybrid = found["cpen455-hybrid", "cpen455"]
    said = f"right {hybrid['A alone right']} times and `cpen455` alone {hybrid['B alone right']} times"
    assert said in " ".join(text_of("README.md").split())


def test_distances_are_as_measured():
    shown = [row for row in rows_under("Its pictures, judged by that CNN") if "extrapolated" in row]
    for row, true in zip(shown, quality("Fréchet distance"), strict=True):
        assert row.keys() - {"#"} == true.keys()
        for column in true.keys() - {"pictures"}:
            assert agree(row[column], true[column]), (row, column)
