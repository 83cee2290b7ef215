"""`make test-browser`: the leaderboard's page in a headless Chromium, by clicks, by keys and without scripts."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from kit.__main__ import main

DASH = "\N{EN DASH}"  # in an empty cell
SHOTS = Path(__file__).parent / "shots"
TEAMS = {"ann": 16, "<img src=x onerror=alert(1)>": 11, "Cem": 5, "bob-hybrid": 14, "half": 0}  # right labels of 16


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("board")
    (home / "in").mkdir()
    labels = {f"test/{n}.png": n % 2 for n in range(16)}
    for team, hits in TEAMS.items():
        rows = [f"{name},{y if n < hits else 1 - y}\n" for n, (name, y) in enumerate(labels.items())]
        (home / "in" / f"{team}.csv").write_text("".join(rows[:hits]) if team == "half" else "".join(rows))
    (home / "labels.csv").write_text("".join(f"{name},{y}\n" for name, y in labels.items()))
    command = ["leaderboard", str(home / "in"), "--labels", str(home / "labels.csv"), "--out", str(home), "--final"]
    assert main([*command, "--rubric", "project"]) == 0
    return (home / "leaderboard.html").as_uri()


def teams(page: Page) -> list[str]:
    return page.locator("tbody bdi").all_inner_texts()


def values(page: Page, column: int) -> list[str]:
    return [row.locator("td, th").nth(column).inner_text() for row in page.locator("tbody.scored tr").all()]


def test_sorting(address, chromium):
    page = chromium.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(address)
    first = teams(page)
    assert first[-1] == "half" and set(first) == set(TEAMS)
    page.get_by_role("button", name="team").click()
    assert teams(page)[:-1] == sorted(set(TEAMS) - {"half"}, key=str.casefold) and teams(page)[-1] == "half"
    heads = page.locator("thead th")
    assert [head.get_attribute("aria-sort") for head in heads.all()].count(None) == heads.count() - 1
    button = page.get_by_role("button", name="rank", exact=True)
    for key, way, ranks in (
        ("Enter", "ascending", ["1", "2", "3", DASH]),
        ("Space", "descending", ["3", "2", "1", DASH]),
    ):
        button.focus()
        page.keyboard.press(key)
        assert heads.first.get_attribute("aria-sort") == way and values(page, 0) == ranks, "blanks stay last"
    page.get_by_role("button", name="accuracy, %", exact=True).click()
    found = [float(value) for value in values(page, 2)]
    assert found == sorted(found, reverse=True) and len(set(found)) > 2
    assert faults == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_scripts_at_every_width(address, chromium, scheme):
    page = chromium.new_page(color_scheme=scheme, java_script_enabled=False)
    page.goto(address)
    assert len(teams(page)) == len(TEAMS) and page.get_by_role("button").count() == 0
    for width in (320, 800, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        table = page.locator(".wide").bounding_box()
        assert table and table["x"] >= 0 and table["x"] + table["width"] <= width, "the page itself does not scroll"
        page.screenshot(path=SHOTS / f"leaderboard_{scheme}_{width}.png", full_page=True)
    page.close()
