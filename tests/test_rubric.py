"""Points worked out by hand under every shipped rubric, and everything that is no rubric refused in a line."""

import pytest
import yaml

from kit import rubric
from utils import UsageError

GOOD = {"part": "a", "points": 5, "measure": "accuracy", "zero": 25, "full": 75}


def earned(name: str, **values: float) -> list[float | None]:
    values = {key.replace("_", " "): value for key, value in values.items()}
    return [part.earned(values) for part in rubric.read_rubric(name).parts]


def test_the_course_of_2024():
    assert earned("cpen455-2024", FID=45, accuracy=60) == [17.5, 24.5, None, 0, None]  # 35 x 15 / 30, 35 x 35 / 50
    assert earned("cpen455-2024", FID=60, accuracy=25) == [0, 0, None, 0, None]
    assert earned("cpen455-2024", FID=75.5, accuracy=10) == [0, 0, None, 0, None]
    assert earned("cpen455-2024", FID=30, accuracy=75) == [35, 35, None, 0, None], "the bonus is for more than 75 %"
    assert earned("cpen455-2024", FID=12, accuracy=75.1) == [35, 35, None, 10, None]
    assert earned("cpen455-2024", accuracy=60)[0] is None
    assert rubric.read_rubric("cpen455-2024").points == 100, "a bonus does not count in it"


def test_the_course_of_2025():
    assert earned("cpen455-2025", accuracy=79.9, rank=1 - 12 / 12) == [None, 0, 0, None, 0]
    assert earned("cpen455-2025", accuracy=80.0, rank=1 - 3 / 12) == [None, 5, 0, None, 22.5]
    assert earned("cpen455-2025", accuracy=85.0, rank=1 - 1 / 12) == [None, 5, 5, None, 27.5]
    assert rubric.read_rubric("cpen455-2025").points == 100


def test_the_kit_s_own():
    assert earned("project", accuracy=70, FID=36, rank=1 - 1 / 4) == [15, 8, 7.5, None, None]
    assert earned("project", accuracy=95, FID=61, rank=0) == [30, 0, 0, None, None]
    assert rubric.read_rubric("project").points == 100


def test_points_are_rounded_and_a_measure_may_be_absent(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "title: mine\nparts:\n- {part: f, points: 1, measure: macro F1, zero: 0, full: 3}\n"
        "- {part: g, points: 2.5, measure: macro F1, at_least: 33.3, bonus: true}\n"
    )
    found = rubric.read_rubric(str(tmp_path / "mine.yaml"))
    assert [part.earned({"macro F1": 1.0}) for part in found.parts] == [0.33, 0]
    assert [part.earned({"macro F1": 33.3}) for part in found.parts] == [1, 2.5]
    assert [part.earned({"macro F1": None}) for part in found.parts] == [None, None] and found.points == 1
    assert [part.rule() for part in found.parts] == [
        "macro F1, linear from 0 at 0 % to all at 3 %", "all for macro F1 of at least 33.3 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "parts, words",
    [
        ([], "`parts` must be a list"),
        ("accuracy", "`parts` must be a list"),
        ([3], "part 1 must have the keys"),
        ([GOOD | {"weight": 3}], "part 1 has an unknown key: 'weight'"),
        ([{1: 2} | GOOD], "part 1 has an unknown key: 1"),
        ([{"part": "a", "points": 5}], "part 1 has no `measure`"),
        (
            [GOOD | {"measure": "bits"}],
            "'a': `measure` must be one of accuracy, macro F1, FID, rank, by hand, not 'bits'",
        ),
        ([GOOD | {"measure": ["FID"]}], "`measure` must be one of"),
        ([GOOD | {"points": "5"}], "'a': `points` must be a number, not '5'"),
        ([GOOD | {"points": True}], "`points` must be a number"),
        ([GOOD | {"points": float("nan")}], "`points` must be a number, not nan"),
        ([GOOD | {"points": -5}], "`points` must be above 0"),
        ([GOOD | {"points": 1e9}], "1000 at most"),
        ([GOOD | {"points": 10**400}], "`points`"),
        ([GOOD | {"zero": float("inf")}], "`zero` must be a number, not inf"),
        ([GOOD | {"full": 25}], "`zero` and `full` are the same, 25"),
        ([GOOD | {"above": 3}], "accuracy needs `zero` and `full`, or `at_least`, or `above`, not above, full, zero"),
        ([{"part": "a", "points": 5, "measure": "accuracy"}], "not nothing"),
        ([GOOD | {"measure": "rank"}], "rank takes no bars"),
        ([{"part": "a", "points": 5, "measure": "FID", "above": 30}], "a FID is better if lower"),
        ([GOOD | {"bonus": "yes"}], "`bonus` must be true or false, not 'yes'"),
        ([GOOD | {"part": 7}], "part 1: a name has"),
        ([GOOD | {"part": "a\nb"}], "part 1: a name has"),
        ([GOOD, GOOD], "two columns would be called 'a'"),
        ([GOOD | {"part": "Rank"}], "two columns would be called 'Rank'"),
    ],
)
def test_what_is_no_rubric(tmp_path, parts, words):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"title": "t", "parts": parts}))
    with pytest.raises(UsageError) as refused:
        rubric.read_rubric(str(tmp_path / "r.yaml"), taken=["rank"])
    assert words in str(refused.value) and str(tmp_path / "r.yaml") in str(refused.value)


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(97 + n)}: &{chr(97 + n)} [{', '.join([f'*{chr(96 + n)}'] * 8)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    "content",
    [
        "", "- 1", "title: [", "title: t", "title: t\nparts: *x", "2024-13-45", "[" * 1_000, "!!python/name:os.system",
        "!!python/object/apply:os.system ['touch /tmp/never']", BOMB, f"{BOMB}title: t\nparts: *t", "\0", "é",
        "x" * 200_000,
    ],
)  # fmt: skip
def test_strange_files(tmp_path, content):
    (tmp_path / "r.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError) as refused:
        rubric.read_rubric(str(tmp_path / "r.yaml"))
    assert len(str(refused.value)) < 600


def test_a_rubric_that_is_not_there(tmp_path):
    for name in ("none", str(tmp_path / "none.yaml"), str(tmp_path), "../rubrics/none"):
        with pytest.raises(UsageError, match=r"there is no rubric|cannot be read"):
            rubric.read_rubric(name)


@pytest.mark.parametrize(
    "content, words",
    [
        ("team,report\nann,3\n", "needs one column called 'own fusion explained'"),
        ("name,report,own fusion explained\nann,3,3\n", "needs one column called 'team'"),
        ("", "needs one column called 'team'"),
        ("report,own fusion explained,team\n3\n", "line 2: the team '' has handed in nothing"),
        ("team,report,own fusion explained\neve,3,3\n", "line 2: the team 'eve' has handed in nothing"),
        ("team,report,own fusion explained\nann,3,3\n\nann,3,3\n", "line 4: the team 'ann' appears twice"),
        ("team,report,own fusion explained\nann,31,3\n", "line 2: report is worth 0 to 30 points, not '31'"),
        ("team,report,own fusion explained\nann,-1,3\n", "report is worth 0 to 30 points"),
        ("team,report,own fusion explained\nann,nan,3\n", "report is worth 0 to 30 points, not 'nan'"),
        ("team,report,own fusion explained\nann,3,good\n", "own fusion explained is worth 0 to 20 points, not 'good'"),
    ],
)
def test_wrong_marks(tmp_path, content, words):
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(UsageError) as refused:
        rubric.read_marks(tmp_path / "m.csv", rubric.read_rubric("project"), ["ann", "bob"])
    assert words in str(refused.value) and str(tmp_path / "m.csv") in str(refused.value)
