"""Numbers that the notebooks' prose quotes are the measured ones, and every quoted number is known here.

`QUOTES` holds one entry a sentence: a regular expression whose groups are the quoted numbers, and a function that works
the same numbers out from where they were measured: the tables and sentences of sweeps/*.md, README.md, RESULTS.md and
checkpoints/README.md, benchmarks/*.json, constants of `utils`. Where a number is no measurement but arithmetic or a
definition, `DEFINED` has it, with its reason and, where there is one, a computation.
`CLAIMS` are sentences without a number that measured ones must bear out, `LITERALS` the dicts of numbers in code cells.
"""

import ast
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import torch

from kit.exercises.zero_shot_classification import fit_temperature
from kit.scores import sign_test
from kit.widgets.evidence_lens import evidence_limit
from utils import cartoons, muon
from utils.fusion import SITES, Fusion
from utils.model import ConditionalPixelCNN, ModelConfig
from utils.training import TrainConfig

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
COUNTED = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
WORDS = {word: float(n) for n, word in enumerate(COUNTED.split())}
WORDS |= {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "ninety": 90, "hundred": 100, "half": 0.5}
MINUS = "\N{MINUS SIGN}"
FIGURE = rf"[{MINUS}+-]?\d[\d,]*(?:\.\d+)?"
UNIT = r"(?:%|per cent|bits?|points?|nats?|hours?|minutes?|seconds?)(?!\w)"
# what must be known: a number before a unit, in figures or words, or one with three decimals or more
QUOTED = re.compile(
    rf"(?<![\w.]){FIGURE}(?=\s*{UNIT})|(?<![\w.])[{MINUS}+-]?\d\.\d{{3,}}(?!\.?\d)|\b(?:{'|'.join(WORDS)})(?=\s+{UNIT})",
    re.IGNORECASE,
)


# where numbers were measured


def document(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def results() -> str:
    """README.md and RESULTS.md: measured numbers stand in one of them."""
    return document("README.md") + "\n" + document("RESULTS.md")


def plain(cell: str) -> str:
    return cell.strip().replace("`", "").replace("**", "")


def tables(text: str) -> list[dict[str, str]]:
    """The rows of all Markdown tables, each with its table's headings, and "#", the section's title."""
    rows: list[dict[str, str]] = []
    title, heads = "", None
    for line in text.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        if not line.startswith("|"):
            heads = None
            continue
        cells = [plain(cell) for cell in line.strip().strip("|").split("|")]
        if heads is None:
            heads = cells
        elif not set("".join(cells)) <= set(":- "):
            rows.append({"#": title} | dict(zip(heads, cells, strict=True)))
    return rows


def number(text: str) -> float:
    """A quoted number, in figures or in words."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    found = re.search(FIGURE, text)
    assert found, f"{text!r} is no number"
    return float(found[0].replace(MINUS, "-").replace(",", ""))


def measured(text: str, column: str, **cells: str) -> float:
    """The number in the column of the one row that has these cells; `first` means the row's first cell."""
    rows = [
        row
        for row in tables(text)
        if column in row
        and all((list(row.values())[1] if key == "first" else row.get(key.replace("_", " "))) == value
                for key, value in cells.items())
    ]  # fmt: skip
    assert len(rows) == 1, f"{len(rows)} rows of {cells} with {column!r}"
    return number(rows[0][column])


def sweep(name: str, setting: str, column: str) -> float:
    """The mean that sweeps/README.md or sweeps/tables.md has for a setting: "accuracy, %" or "validation bits/dim"."""
    return measured(section(name), column, first=setting)


def fusion_accuracy(site: str) -> float:
    return sweep("fusion.yaml", site, "accuracy, %")


def saved_by_film() -> float:
    none, film = (sweep("fusion.yaml", site, "validation bits/dim") for site in ("none", "film"))
    return none - film


def section(name: str) -> str:
    """What sweeps/README.md has on a sweep, and the table of its single settings, if tables.md has it."""
    pages = (document("sweeps/README.md"), document("sweeps/tables.md"))
    return "\n".join(page.partition(f"### {name}\n")[2].partition("\n### ")[0] for page in pages)


def accuracy_and_bits(name: str, settings: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """setting -> mean and standard deviation of the accuracy in %, then of the validation bits."""
    found = {}
    for row in tables(section(name)):
        cells = [row["accuracy, %"], row["validation bits/dim"]]
        found[list(row.values())[1]] = tuple(number(part) for cell in cells for part in cell.split("±"))
    return {setting: found[setting] for setting in settings}


def number_in(name: str, pattern: str, which: int = 0) -> float:
    """A number of the sentence in a document's prose that the pattern finds, counted from 0."""
    found = re.search(pattern, " ".join(document(name).split()))
    assert found, f"{name} has no sentence {pattern!r}"
    return number(re.findall(FIGURE, found[0])[which])


def quality(section: str, column: str, **row: str) -> float:
    rows = json.loads(document("benchmarks/quality.json"))["sections"][section]
    return next(each[column] for each in rows if row.items() <= each.items())


def classifies(column: str, model: str) -> float:
    return quality("classification", column, model=model)


def recipe_bits(setting: str) -> float:
    return sweep("recipe.yaml", setting, "validation bits/dim")


def averaging(schedule: str) -> list[float]:
    """Accuracy with the last and with the averaged weights, for each rate and batch size in turn."""
    return [
        sweep("recipe.yaml", f"lr={lr},schedule={schedule},ema_decay={decay},batch_size={size}", "accuracy, %")
        for lr in (0.002, 0.005)
        for size in (8, 16)
        for decay in (0.0, 0.99)
    ]


def best_run(optimiser: str, batch_size: int) -> dict[str, str]:
    """The row of optimizer.yaml's table that has the fewest bits."""
    rows = [row for row in tables(section("optimizer.yaml")) if row.get("optimiser") == optimiser]
    runs = [row for row in rows if row["batch size"] == str(batch_size)]
    return min(runs, key=lambda row: number(row["validation bits/dim"]))


def best_bits(optimiser: str, batch_size: int) -> float:
    return number(best_run(optimiser, batch_size)["validation bits/dim"])


def after_five_rounds() -> list[float]:
    """From where on Muon's rounds bring singular values to 0.68 and more, and the range that they bring them to."""
    values = torch.linspace(0, 1, 10_001, dtype=torch.float64)  # steps of 0.0001
    a, b, c = muon.NEWTON_SCHULZ
    after = values
    for _ in range(muon.NEWTON_SCHULZ_STEPS):
        after = a * after + b * after**3 + c * after**5
    last_below = int((after < 0.68).nonzero().max())
    return [float(values[last_below]), float(after[last_below + 1 :].min()), math.ceil(100 * float(after.max())) / 100]


N = FIGURE
PAIR = rf"({N})\s*→\s*({N})"
FOUR_PAIRS = f"{PAIR}, {PAIR}, {PAIR} and {PAIR} %"
SWEEPS = "sweeps/README.md"


class Quote(NamedTuple):
    notebook: str
    pattern: str  # over the Markdown of the notebook, in one line; its groups are the numbers
    true: Callable[[], list[float] | tuple[float, ...]]
    why: str = ""


QUOTES = [
    Quote("00", r"the strongest (\d+) % of the values lie beyond its ends", lambda: [100 * (1 - shown_share())]),
    Quote("00", r"(four) thousand pictures for training and (five) hundred each for validation and for the test",
          lambda: [cartoons.SPLITS["train"] / 1000, cartoons.SPLITS["test"] / 100]),
    Quote("03", rf"`film` saves ({N}) bits per dimension against `none`, about ({N}) bits a picture",
          lambda: [saved_by_film(), round(3 * 32 * 32 * saved_by_film(), -2)]),
    Quote("04", rf"({N}) bits per dimension with 16, ({N}) with 8",
          lambda: [recipe_bits("batch_size=16"), recipe_bits("batch_size=8")]),
    Quote("04", rf"({N}) bits with (0\.002), ({N}) with (0\.005)",
          lambda: [recipe_bits("lr=0.002"), 0.002, recipe_bits("lr=0.005"), 0.005]),
    Quote("04", rf"at a constant rate:? {FOUR_PAIRS}", lambda: averaging("step")),
    Quote("04", rf"[Uu]nder a cosine nothing: {FOUR_PAIRS}", lambda: averaging("cosine")),
    Quote("04", rf"with it ({N}), ({N}) and ({N}) bits \(three seeds\), without it ({N}), ({N}) and ({N})",
          lambda: [number_in(SWEEPS, rf"{which} {N}, {N} and {N} bits", n)
                   for which in ("it came to", r"fresh `ConditionalPixelCNN`\) to") for n in range(3)]),
    Quote("04", rf"batches of (4):? {PAIR} bits; of (8), each at its best rate[:,] {PAIR}; of (16):? {PAIR}",
          lambda: [n for size in (4, 8, 16) for n in (size, best_bits("Adam", size), best_bits("Muon", size))]),
]  # fmt: skip

DEFINED = [
    Quote("00", r"In (ten) minutes you will let a network draw", lambda: [10], "a reader's time"),
    Quote("00", r"A lead of (1) nat means that the label is e ≈ (2\.7) times as likely", lambda: [1, math.e]),
    Quote("01", r"a fair coin costs (1) bit", lambda: [math.log2(2)]),
    Quote("01", r"each pixel is a fair coin: (1) bit", lambda: [math.log2(2)]),
    Quote("01", r"16 \+ 15·2 = (46) coins for (256) pixels", lambda: [16 + 15 * 2, 16 * 16]),
    Quote("01", r"needs 46/256 = (0\.18) bits per pixel", lambda: [46 / 256]),
    Quote("02", r"a nat is (1\.44) bits", lambda: [1 / math.log(2)]),
    Quote("03", r"class of four is worth at most (2) (?:bits )?of a whole", lambda: [math.log2(4)]),
    *[
        Quote("03", rf"\|`{site}`\|[^|]*\|([\d,]+)\|", lambda site=site: [parameters_of(site)])
        for site in SITES
    ],
    Quote("04", r"costs (8) bits per dimension", lambda: [math.log2(256)]),
    Quote("04", r"(16) bits", lambda: [torch.finfo(torch.bfloat16).bits]),
    Quote("04", r"multiplies its rate by (0\.999995) after each of (200) epochs",
          lambda: [TrainConfig().lr_decay, TrainConfig().epochs], "the report's settings are the defaults"),
    Quote("04", r"In (200) epochs of (260) steps", lambda: [TrainConfig().epochs, math.ceil(4159 / 16)]),
    Quote("04", r"the report's Table 2 says (0\.002), its text", lambda: [0.002], "read there (../shared/design.md)"),
    Quote("04", r"bring those above (0\.0015) to between (0\.68) and (1\.21)", after_five_rounds),
    Quote("04", r"trains for (ten) minutes", lambda: [number(re.search(r'"--minutes", "(\d+)"', code_of("04"))[1])]),
    Quote("05", r"of the pictures it is (80) % sure of, (80) % are right", lambda: [80, 80], "an example"),
    Quote("05", r"z = (1\.96), the (95) % \*\*Wilson interval", lambda: [statistics.NormalDist().inv_cdf(0.975), 95]),
    Quote("05", r"with its number of pictures and its (95) % interval", lambda: [95], "the same z"),
    Quote("05", r"With four classes a lead of (6) nats already means a posterior of at least (0\.99)",
          lambda: [6, math.floor(100 / (1 + 3 * math.exp(-6))) / 100]),
    Quote("05", r"at most (0\.001) nats above the least", lambda: [fit_temperature.TOLERANCE]),
    Quote("05", r"are right for (90) % and (92) % of the same 400 pictures", lambda: [90, 92], "an example"),
    Quote("06", r"squared differences of all (3072) values", lambda: [3 * 32 * 32]),
    Quote("06", r"with its (95) % Wilson interval", lambda: [95], "the level of kit.scores.wilson_interval"),
    Quote("08", r"Its \*\*(95) % interval\*\* is Wilson's", lambda: [95], "the level that scipy's proportion_ci has"),
    Quote("08", r"pictures a classifier is (80) % sure of, (80) % should be right", lambda: [80, 80], "an example"),
    Quote("08", r"pictures whose posteriors round to (100) % are in order too", lambda: [100], "the largest posterior"),
    Quote("08", r"accuracies of (88) % and (90) % on the same (500) pictures", lambda: [88, 90, 500], "an example"),
    Quote("08", r"If that is (26) to (16), the sign test gives p = (0\.16)", lambda: [26, 16, sign_test(26, 16)]),
    Quote("08", r"If it is (12) to (2), p = (0\.01)", lambda: [12, 2, sign_test(12, 2)]),
    Quote("08", r"What does the (95) % interval", lambda: [95], "Wilson's, as above"),
    Quote("09", r"about (ten) hours a week",
          lambda: [number_in("README.md", r"09_project.ipynb\)[^|]*\|[^|]*\| \d+ \|", -1) / 4], "of four"),
]  # fmt: skip

# sentences without a number that tables bear out
CLAIMS: list[tuple[str, str, Callable[[], bool]]] = [
    ("03", "`film` is the best single site", lambda: max(SITES, key=fusion_accuracy) == "film"),
    ("03", "all six together are better still", lambda: fusion_accuracy("all") > fusion_accuracy("film")),
    ("04", "Muon's accuracy was lower each time",
     lambda: all(number(best_run("Muon", size)["accuracy, %"]) < number(best_run("Adam", size)["accuracy, %"])
                 for size in (4, 8, 16))),
]  # fmt: skip

# (notebook, name of the dict in a code cell) -> the same, measured; it is called with the dict
LITERALS: dict[tuple[str, str], Callable[[dict], dict]] = {
    ("03", "SWEEP"): lambda quoted: accuracy_and_bits("fusion.yaml", quoted),
    ("04", "RECIPE"): lambda quoted: {
        setting: (*found[2:], *found[:2]) for setting, found in accuracy_and_bits("recipe.yaml", quoted).items()
    },
}


def shown_share() -> float:
    """The share of an evidence map's values that lie within the ends of its colour scale."""
    values = torch.arange(10_001.0)
    return float((values <= evidence_limit(values)).double().mean())


def parameters_of(site: str) -> int:
    """How many parameters a fusion site has in the report's network on 32x32 pictures of four classes."""
    nr_blocks = ConditionalPixelCNN(ModelConfig(4, nr_resnet=2, nr_filters=2)).fusion.nr_blocks
    return sum(p.numel() for p in Fusion((site,), 4, 100, nr_blocks, 10 * 5, 32).parameters())


# the notebooks


def cells_of(notebook: str, kind: str) -> list[str]:
    cells = nbformat.read(NOTEBOOKS[notebook], as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


def code_of(notebook: str) -> str:
    return "\n".join(cells_of(notebook, "code"))


def prose_of(notebook: str) -> str:
    """The Markdown of a notebook in one line, without its links' addresses."""
    text = "\n\n".join(cells_of(notebook, "markdown"))
    return " ".join(re.sub(r"\]\([^)\s]*\)", "]", text).split())


def decimals(quoted: str) -> int:
    return len(quoted.partition(".")[2]) if quoted[-1].isdigit() else 0


def wrong_numbers(prose: str, quote: Quote) -> list[str]:
    """What is wrong with a quote: no such sentence, or numbers that are not the measured ones, rounded as quoted."""
    matches = list(re.finditer(quote.pattern, prose))
    if not matches:
        return [f"there is no sentence {quote.pattern!r} any more: change or remove its entry"]
    wrong = []
    for match in matches:
        for quoted, true in zip(match.groups(), quote.true(), strict=True):
            if not abs(number(quoted) - true) <= 0.5 * 10 ** -decimals(quoted) + 1e-9:
                wrong.append(f"{match[0]!r}: {quoted} is quoted, but {true:.6g} was measured")
    return wrong


def unknown_numbers(prose: str, quotes: list[Quote]) -> list[str]:
    """The numbers with a unit, or with three decimals, that no quote has in a group, with a few words around them."""
    known = set()
    for quote in quotes:
        for match in re.finditer(quote.pattern, prose):
            known |= {match.span(group) for group in range(1, len(match.groups()) + 1)}
    covered = {place for start, end in known for place in range(start, end)}
    return [
        prose[max(found.start() - 60, 0) : found.end() + 30]
        for found in QUOTED.finditer(prose)
        if not set(range(*found.span())) <= covered
    ]


@pytest.mark.parametrize("quote", [*QUOTES, *DEFINED], ids=lambda quote: f"{quote.notebook}-{quote.pattern[:40]}")
def test_a_quoted_number_is_the_measured_one(quote):
    assert wrong_numbers(prose_of(quote.notebook), quote) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_number_of_the_prose_has_its_source_here(notebook):
    assert unknown_numbers(prose_of(notebook), [q for q in (*QUOTES, *DEFINED) if q.notebook == notebook]) == []


@pytest.mark.parametrize("notebook, claim, holds", CLAIMS, ids=[f"{claim[0]}-{claim[1][:40]}" for claim in CLAIMS])
def test_a_claim_is_borne_out(notebook, claim, holds):
    assert claim in prose_of(notebook), "this sentence is gone: change or remove its entry"
    assert holds()


def literals_of(notebook: str) -> dict[str, object]:
    """Dicts with decimal numbers that code cells assign to a name in capitals."""
    found = {}
    for source in cells_of(notebook, "code"):
        lines = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
        for node in ast.parse(lines).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                decimal = any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in ast.walk(node.value))
                if name.isupper() and decimal and isinstance(node.value, ast.Dict):
                    found[name] = ast.literal_eval(node.value)
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_numbers_that_a_code_cell_quotes_are_the_measured_ones(notebook):
    found = literals_of(notebook)
    assert set(found) == {name for number, name in LITERALS if number == notebook}
    for name, value in found.items():
        assert value == LITERALS[notebook, name](value)


# the test itself


def test_a_changed_number_is_seen():
    for quote in (*QUOTES, *DEFINED):
        prose = prose_of(quote.notebook)
        match = re.search(quote.pattern, prose)
        if match is None:
            continue  # that sentence is gone, as the first test says
        for group, quoted in enumerate(match.groups(), 1):
            if quoted[-1].isdigit():
                last = match.end(group) - 1
                changed = f"{prose[:last]}{(int(prose[last]) + 2) % 10}{prose[last + 1 :]}"
                others = [other for other in (*QUOTES, *DEFINED) if other.notebook == quote.notebook]
                seen = wrong_numbers(changed, quote) or unknown_numbers(changed, others)
                assert seen, f"{quote.pattern!r} does not see a change of {quoted}"


def test_a_new_number_is_seen():
    new_ones = ["74 % of", "0.034 bits", "12 points", "a gap of 3 nats", "4.153", "two hours", "5.9 hours", "1 point"]
    new_ones += [
        f"{MINUS}0.22 bits",
        "Seven points",
        "1.5 minutes",
        "90 seconds",
        "half per cent",
        "66.2%",
        "2 bits/dim",
        "0.999995",
    ]
    for new in new_ones:
        assert len(unknown_numbers(f"It is {new} here.", [])) == 1, new
    assert (
        unknown_numbers("Notebook 05, 32x32 pixels, a 0.5 and 1024 of them, version 2.14.1, arXiv 1701.05517.", [])
        == []
    )
    quote = Quote("00", r"it is (\d+) %", lambda: [74])
    assert unknown_numbers("it is 74 %, it was 73 %", [quote]) == ["it is 74 %, it was 73 %"]
    assert wrong_numbers("it is 74 %", quote) == [] and "74 was measured" in wrong_numbers("it is 75 %", quote)[0]
    assert "no sentence" in wrong_numbers("it is more", quote)[0]


def test_the_sources_are_read_rightly():
    assert sweep("fusion.yaml", "film", "accuracy, %") == 70.2
    assert sweep("fusion.yaml", "none", "validation bits/dim") == 4.186
    assert sweep("recipe.yaml", "lr=0.005", "accuracy, %") == 57.9
    assert accuracy_and_bits("fusion.yaml", ["film"]) == {"film": (70.2, 3.2, 4.153, 0.033)}
    assert measured(results(), "bits per dimension", choice="batches of 8") == -0.44
    assert classifies("accuracy", "CNN") == pytest.approx(0.9306, abs=1e-4)
    assert number_in("checkpoints/README.md", rf"seen, {N} hours of the clock") == 4.9
    assert (
        number_in(SWEEPS, rf"In batches of {N} Muon at the best rate tried, which is the highest, saves {N} bits", 1)
        == 0.22
    )
    assert (best_bits("Adam", 8), best_bits("Muon", 8)) == (4.660, 4.442)
