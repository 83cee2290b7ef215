"""`python -m kit leaderboard SUBMISSIONS`: a class's submissions scored, ranked, and shown as a table and a page."""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from utils import UsageError, listing, note
from utils.checkpoints import write_atomically
from utils.data import read_rows

from .. import board
from ..board import Standing, Team
from ..fid import COURSE_DIMS
from ..platforms import check_writable, template
from ..rubric import Rubric, read_marks, read_rubric
from ..scores import p_value
from ..tables import write_table

COLUMNS = {  # of the table, and the headings; the page draws `low` to `high` and says a note below the team's name
    "rank": "rank", "team": "team", "accuracy": "accuracy, %", "low": "from, %", "high": "to, %",
    "p": "p against the next", "macro F1": "macro F1, %", "FID": "FID", "samples": "samples",
    "claimed FID": "claimed FID", "public accuracy": "public accuracy, %", "public rank": "public rank",
    "moved": "places up", "note": "note", "total": "points",
}  # fmt: skip
MAY_BE_ABSENT = ("FID", "samples", "claimed FID", "public accuracy", "public rank", "moved", "note")
IN_THE_PAGE = {"low": "95 % interval"}
HYBRID = "trained with --hybrid: not purely generative, not ranked"
Row = dict[str, Any]


def run(
    submissions: str, /, *, labels: str, out: str, reference: str | None = None, final: bool = False, seed: int = 0,
    rubric: str | None = None, by_hand: str | None = None,
) -> None:  # fmt: skip
    """a class's submissions scored, ranked and shown on a page

    Args:
        submissions: a folder with TEAM.csv, TEAM/submission.csv or nbgrader's submitted/TEAM/ASSIGNMENT/submission.csv;
            a folder samples/ next to a team's file holds its samples.
        labels: your table of the test pictures' labels, rows path,label.
        out: a folder for leaderboard.html and leaderboard.csv; what else is in it stays.
        reference: a folder of real pictures, for the FID of the samples.
        final: rank by the private half, and show how many places each team has moved.
        seed: fixes which pictures are in the public half; keep it from the first leaderboard to the last.
        rubric: points for the scores: project, cpen455-2024, cpen455-2025 or a .yaml file of your own.
        by_hand: a table of the points that you give by hand, with the column team and one for each such part.
    """
    place, folder, table_file = Path(submissions), Path(out), Path(out) / "leaderboard.csv"
    for path, flag in ((folder, "--out"), (Path(labels), "--labels")):
        if path.resolve().is_relative_to(place.resolve()):
            raise UsageError(f"{flag} {path} lies in {place}, as if a team had handed it in: choose another place")
    rules = read_rubric(rubric, [*COLUMNS, *COLUMNS.values()]) if rubric else None
    if by_hand and not (rules and rules.by_hand):
        raise UsageError("--by-hand gives points for parts of a rubric that are marked by hand: add such a --rubric")
    known = board.read_labels(labels)
    check_writable(folder)
    teams = board.read_teams(place, known)
    marks = {}
    if by_hand and rules:
        marks = read_marks(by_hand, rules, [team.name for team in teams])
    if lost := points_only_there(table_file, rules, marked=bool(by_hand)):
        keep = "keep a copy of it, and add its --rubric and --by-hand COPY, or choose another --out"
        raise UsageError(f"{table_file} holds points for {listing(lost)}, which would be lost: {keep}")
    if reference:
        with tqdm(desc="pictures", leave=False, disable=None) as bar:
            board.measure_fids(teams, reference, bar.update)

    truth, public = torch.tensor(list(known.values())), board.public_half(known, seed)
    half = ~public if final else public
    found = board.standings(teams, truth, half)
    rows = table(teams, found, board.standings(teams, truth, public) if final else {}, rules, marks)
    keys = [key for key in COLUMNS if key not in MAY_BE_ABSENT or any(row.get(key) not in (None, "") for row in rows)]
    parts = [part.part for part in rules.parts] if rules else []
    keys = [key for key in keys if key != "total"] + ([*parts, "total"] if rules else [])
    about: dict[str, Any] = {
        "half": "private" if final else "public", "count": int(half.sum()), "pictures": len(truth),
        "classes": int(truth.max()) + 1, "seed": seed, "today": date.today().isoformat(), "data": Path(labels).name,
        "ranked": sum(standing.rank is not None for standing in found.values()), "rules": rules, "dims": COURSE_DIMS,
        "blank": [part for part in parts if any(row["rank"] and row[part] is None for row in rows)],
    }  # fmt: skip
    html = page(keys, rows, about)
    headings = [COLUMNS.get(key, key) for key in keys]
    write_table(table_file, [headings, *([row.get(key) for key in keys] for row in rows)])
    write_atomically(
        folder / "leaderboard.html",
        lambda temporary: temporary.write_text(html, encoding="utf-8", errors="backslashreplace"),
    )
    for team in teams:
        if team.refused:
            print(f"refused: {team.name}: {team.refused}")
    if about["blank"]:
        note(f"blank for some ranked teams or all, and not in their total: {listing(about['blank'])}")
    where = f"the {about['half']} half of {about['data']}, {about['count']} of {len(truth)} pictures, seed {seed}"
    print(f"{folder / 'leaderboard.html'} and .csv: {about['ranked']} of {len(teams)} teams ranked on {where}")


def points_only_there(path: Path, rules: Rubric | None, marked: bool) -> list[str]:
    """The parts for which an earlier table has points, and which this run does not fill."""
    (_, head), *rows = (list(read_rows(path)) if path.is_file() else []) or [(1, [])]
    filled = dict.fromkeys(name for _, row in rows for name, cell in zip(head, row, strict=False) if cell.strip())
    anew = [part.part for part in (rules.parts if rules else ()) if marked or part.measure != "by hand"]
    return [name for name in filled if name not in (*COLUMNS.values(), *anew)]


def table(
    teams: Sequence[Team], found: Mapping[str, Standing], public: Mapping[str, Standing], rules: Rubric | None,
    marks: Mapping[tuple[str, str], float],
) -> list[Row]:  # fmt: skip
    """A row for each team, in the order of `found`, the refused at the end; percent, None where there is nothing."""
    by_name, rows = {team.name: team for team in teams}, []
    ranked = sum(standing.rank is not None for standing in found.values())
    for name in [*found, *(team.name for team in teams if team.name not in found)]:
        team, standing, before = by_name[name], found.get(name), public.get(name)
        row: Row = {"rank": None, "team": name, "note": team.refused or (HYBRID if team.hybrid else "")}
        values: dict[str, float | None] = {}
        if standing:
            values = {"accuracy": percent(standing.accuracy), "macro F1": percent(standing.macro_f1), "FID": team.fid}
            row |= values | {"low": percent(standing.low), "high": percent(standing.high), "rank": standing.rank}
            row["p"] = None if standing.p_below is None else float(f"{standing.p_below:.3g}")
            row["claimed FID"] = team.claimed_fid
            row["samples"] = None if team.fid is None else team.nr_samples
            values["accuracy"] = 100 * standing.hits / standing.count  # not rounded where points depend on it
            values["rank"] = None if standing.rank is None else 1 - standing.rank / ranked
        if before:
            row |= {"public accuracy": percent(before.accuracy), "public rank": before.rank}
            if standing and standing.rank and before.rank:
                row["moved"] = before.rank - standing.rank
        if rules:
            graded = values if standing and standing.rank else {}
            earned = {part.part: marks.get((name, part.part), part.earned(graded)) for part in rules.parts}
            points = [value for value in earned.values() if value is not None]
            row |= earned | {"total": round(math.fsum(points), 2) if points else None}
        rows.append(row)
    return rows


def percent(share: float) -> float:
    return round(100 * share, 2)


def page(keys: Sequence[str], rows: Sequence[Row], about: Mapping) -> str:
    """The table as one page that needs nothing from elsewhere; every text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    counts = {row.get("samples") for row in rows} - {None}
    left_out = {"high", "note"} | ({"samples"} if len(counts) == 1 else set())
    shown = [key for key in keys if key not in left_out]
    parts = {part.part: part for part in about["rules"].parts} if about["rules"] else {}
    most = {name: f"of {part.points:g}" for name, part in parts.items()}
    if parts:
        most["total"] = f"of {about['rules'].points:g}"
    heads = [(IN_THE_PAGE.get(key, COLUMNS.get(key, key)), most.get(key, ""), key) for key in shown]
    bounds = [row[key] for row in rows if row.get("low") is not None for key in ("low", "high")]
    least, largest = (math.floor(min(bounds) / 10) * 10, math.ceil(max(bounds) / 10) * 10) if bounds else (0, 100)
    scale = {"least": least, "most": largest, "span": max(largest - least, 1)}
    first = next((n for n, key in enumerate(shown) if key in most), len(shown))
    lines: list[dict[str, Any]] = [
        {"row": row, "cells": [(key, text(key, row), row.get(key)) for key in shown]} for row in rows
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template("leaderboard.html.j2")).render(
        heads=heads, scale=scale, first_points=first, keys=shown, samples=sorted(counts), parts=list(parts.values()),
        scored=[line for line in lines if line["row"].get("accuracy") is not None],
        refused=[line for line in lines if line["row"].get("accuracy") is None], **about,
    )  # fmt: skip


def text(key: str, row: Row) -> str:
    """A cell as the page shows it."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    if key == "p":
        return p_value(value)
    if key == "low":
        return f"{value:.1f} to {row['high']:.1f}"
    if key == "moved":
        return f"{value:+.0f}".replace("-", "\N{MINUS SIGN}") if value else "0"
    if key in ("rank", "public rank", "samples"):
        return str(value)
    return (
        f"{value:.1f}" if key in ("accuracy", "macro F1", "FID", "claimed FID", "public accuracy") else f"{value:.2f}"
    )
