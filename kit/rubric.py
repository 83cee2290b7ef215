"""Points for what a leaderboard measures, and for what a teacher marks by hand.

A rubric is a small YAML file; `kit/rubrics/project.yaml` explains the format, and the other files there are examples.
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils import UsageError, composed, listing
from utils.data import read_rows

from . import leaderboard
from .tables import harmless

SHIPPED = Path(__file__).with_name("rubrics")
MEASURES = ("accuracy", "macro F1", "FID")
KINDS = (*MEASURES, "rank", "by hand")
MOST_BYTES, MOST_POINTS, MOST_LETTERS = 100_000, 1000, 40


@dataclass(frozen=True)
class Part:
    """A rubric's part: so many points at most for a measure, linear from `zero` to `full`, or all of them from
    `at_least` on, or `above` it. A bonus does not count in what a team can have."""

    part: str
    points: float
    measure: str
    zero: float | None = None
    full: float | None = None
    at_least: float | None = None
    above: float | None = None
    bonus: bool = False

    def earned(self, values: Mapping[str, float | None]) -> float | None:
        """Points, to two decimals; `values` are percent, the FID, and for the rank the share of the teams below the
        place. None where there is none."""
        value = values.get(self.measure)
        if value is None:
            return None
        if self.zero is not None and self.full is not None:
            share = (value - self.zero) / (self.full - self.zero)
        elif self.at_least is not None:
            share = float(value >= self.at_least)
        elif self.above is not None:
            share = float(value > self.above)
        else:
            share = value
        return round(self.points * min(max(share, 0.0), 1.0), 2)

    def rule(self) -> str:
        """How the points are earned, in words."""
        unit = "" if self.measure == "FID" else " %"
        if self.zero is not None and self.full is not None:
            return f"{self.measure}, linear from 0 at {self.zero:g}{unit} to all at {self.full:g}{unit}"
        if self.at_least is not None:
            return f"all for {self.measure} of at least {self.at_least:g}{unit}"
        if self.above is not None:
            return f"all for {self.measure} above {self.above:g}{unit}"
        return "(1 - rank / teams) of them" if self.measure == "rank" else "marked by hand"


@dataclass(frozen=True)
class Rubric:
    title: str
    parts: tuple[Part, ...]

    @property
    def points(self) -> float:
        """What can be had without a bonus."""
        return sum(part.points for part in self.parts if not part.bonus)

    @property
    def by_hand(self) -> list[Part]:
        return [part for part in self.parts if part.measure == "by hand"]

    def needs(self, measure: str) -> bool:
        return any(part.measure == measure for part in self.parts)


def read_rubric(name_or_path: str, taken: Sequence[str] = ()) -> Rubric:
    """A file, or one of the kit's by its name. Raises UsageError, which says where, for whatever is not as
    `kit/rubrics/project.yaml` says; no part may be called as one of the columns `taken`."""
    import yaml

    path = Path(name_or_path)
    if not path.suffix and path.name == name_or_path:
        path = SHIPPED / f"{name_or_path}.yaml"
        if not path.is_file():
            known = listing(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
            raise UsageError(f"there is no rubric {name_or_path!r}: choose from {known}, or name a .yaml file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is too large for a rubric")
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UsageError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise UsageError(f"{path} is not YAML: {error}") from None
    try:
        return parsed(content, taken)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parsed(content: object, taken: Sequence[str]) -> Rubric:
    found = keys_of(content, "a rubric", needed={"title", "parts"})
    if not isinstance(found["parts"], list) or not found["parts"]:
        raise UsageError(f"`parts` must be a list of parts, not {reprlib.repr(found['parts'])}")
    parts = tuple(part(each, f"part {number}") for number, each in enumerate(found["parts"], start=1))
    names = [part.part for part in parts]
    for name in names:
        if names.count(name) > 1 or name.casefold() in (*map(str.casefold, taken), "team"):
            raise UsageError(f"two columns would be called {name!r}: choose another name for the part")
    return Rubric(text(found["title"], "`title`"), parts)


def part(content: object, where: str) -> Part:
    """Raises UsageError for unknown or missing keys and values of another kind, before anything is counted."""
    bars = {"zero", "full", "at_least", "above"}
    found = keys_of(content, where, {"part", "points", "measure"}, bars | {"bonus"})
    where = f"part {(name := text(found['part'], where))!r}"
    measure = found["measure"]
    if measure not in KINDS:
        raise UsageError(f"{where}: `measure` must be one of {', '.join(KINDS)}, not {reprlib.repr(measure)}")
    given = found.keys() & bars
    if given not in ([{"zero", "full"}, {"at_least"}, {"above"}] if measure in MEASURES else [set()]):
        rule = "needs `zero` and `full`, or `at_least`, or `above`" if measure in MEASURES else "takes no bars"
        raise UsageError(f"{where}: {measure} {rule}, not {listing(sorted(given)) or 'nothing'}")
    numbers = {key: number(found[key], f"{where}: `{key}`") for key in given}
    if "zero" in given and numbers["zero"] == numbers["full"]:
        raise UsageError(f"{where}: `zero` and `full` are the same, {numbers['zero']:g}")
    if measure == "FID" and given != {"zero", "full"}:
        raise UsageError(f"{where}: a FID is better if lower: give `zero` and `full`")
    if not isinstance(bonus := found.get("bonus", False), bool):
        raise UsageError(f"{where}: `bonus` must be true or false, not {reprlib.repr(bonus)}")
    points = number(found["points"], f"{where}: `points`")
    if not 0 < points <= MOST_POINTS:
        raise UsageError(f"{where}: `points` must be above 0, {MOST_POINTS} at most, not {points:g}")
    return Part(name, points, str(measure), bonus=bonus, **numbers)


def keys_of(content: object, where: str, needed: set[str], others: Sequence[str] | set[str] = ()) -> dict:
    if not isinstance(content, dict):
        raise UsageError(f"{where} must have the keys {', '.join(sorted(needed))}, not be {reprlib.repr(content)}")
    if unknown := [key for key in content if key not in needed and key not in others]:
        raise UsageError(f"{where} has an unknown key: {reprlib.repr(unknown[0])}")
    if missing := sorted(needed - content.keys()):
        raise UsageError(f"{where} has no `{missing[0]}`")
    return content


def text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > MOST_LETTERS:
        raise UsageError(f"{where}: a name has 1 to {MOST_LETTERS} letters on one line, not {reprlib.repr(value)}")
    return value.strip()


def number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise UsageError(f"{where} must be a number, not {reprlib.repr(value)}")
    return float(value)


def read_marks(path: str | Path, rubric: Rubric, teams: Sequence[str]) -> dict[tuple[str, str], float]:
    """The points by team and part of a table with a column `team` and one for each part that is marked by hand; other
    columns are left alone, so that a filled-in copy of leaderboard.csv will do. A blank cell is not marked yet.
    Raises UsageError by line."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}: --by-hand takes a table with the columns team and the parts' names")
    leaderboard.check_size(path)
    (_, head), *rows = list(read_rows(path)) or [(1, [""])]
    columns = [cell.strip() for cell in head]
    for name in ("team", *(part.part for part in rubric.by_hand)):
        if columns.count(name) != 1:
            raise UsageError(f"{path} needs one column called {name!r}; the first line is {leaderboard.quoted(head)}")
    known = {harmless(team): team for team in teams} | {team: team for team in teams}
    marks: dict[tuple[str, str], float] = {}
    seen = set()
    for line, row in rows:
        cells = dict(zip(columns, map(str.strip, row), strict=False))
        team = known.get(composed(cells.setdefault("team", "")))
        if team is None or team in seen:
            fault = "has handed in nothing" if team is None else "appears twice"
            raise UsageError(f"{path}, line {line}: the team {leaderboard.quoted([cells['team']])} {fault}")
        seen.add(team)
        for part in rubric.by_hand:
            if cell := cells.get(part.part, ""):
                marks[team, part.part] = mark(cell, part, f"{path}, line {line}")
    return marks


def mark(cell: str, part: Part, where: str) -> float:
    try:
        value = float(cell.replace(",", "."))  # as spreadsheets write it in many countries
    except ValueError:
        value = math.nan
    if not 0 <= value <= part.points:
        raise UsageError(f"{where}: {part.part} is worth 0 to {part.points:g} points, not {leaderboard.quoted([cell])}")
    return value
