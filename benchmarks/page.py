"""`python -m benchmarks.page`: writes measured numbers into README.md, RESULTS.md and checkpoints/README.md.

What stands there between `<!-- NAME -->` and `<!-- / -->` is `PARTS[NAME]`, from the .json files beside this one.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

from kit.scores import p_value
from utils.checkpoints import SHIPPED, write_atomically

from . import drawing, labels, recipes
from .common import table, table_of_times
from .shipped import FIRST, WITH_SETTINGS

HERE = Path(__file__).parent
PAGES = tuple(HERE.parent / name for name in ("README.md", "RESULTS.md", "checkpoints/README.md"))
MARKED = re.compile(r"(<!-- ([\w -]+) -->)(.*?)(<!-- / -->)", re.DOTALL)
SETTINGS = {
    "": "",
    " --mirror": "`--mirror`: averaged with the mirrored picture",
    " --calibrate 519": "`--calibrate 519`: temperature and class biases fitted to training pictures",
    " --mirror --calibrate 519": "`--mirror --calibrate 519`",
}


def read(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def quality(section: str) -> list[dict]:
    """A section of quality.json, by the beginning of its name."""
    (rows,) = (rows for name, rows in read("quality")["sections"].items() if name.startswith(section))
    return rows


def percent(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{100 * share:.{digits}f}"


def block(rows: list[dict[str, str]], left: int = 1) -> str:
    """A table on lines of its own."""
    return f"\n{table(rows, left)}\n"


def interval(row: dict) -> str:
    return f"{percent(row['95 % from'])} to {percent(row['to'])}"


# shipped.json


def judged_on(row: dict) -> str:
    split = f"{row['dataset']}, {row['split']}, {row['count']}"
    return split if row["size"] == 32 else f"{split}, {row['size']}x{row['size']}"


def shipped() -> str:
    results, rows = read("shipped"), []
    for name in SHIPPED:
        row = results[name]
        rows.append({
            "weights": f"`{name}`" + ", not purely generative" * name.endswith("-hybrid"),
            "parameters": f"{row['parameters']:,}",
            "split": judged_on(row),
            "bits per dimension": f"{row['bits per dimension']:.3f}",
            "accuracy, % (interval)": f"{percent(row['accuracy'], 2)} ({interval(row)})",
            "macro F1, %": percent(row["macro F1"], 2),
        })  # fmt: skip
    return block(rows)


def shipped_in_short() -> str:
    on = {
        "cartoons": "500 test pictures, drawn by the kit",
        "cpen455": "519 validation photographs of the course",
        "cpen455 --mirror": "the same, mirrored too",
        "cpen455-hybrid": "the same 519 photographs",
    }
    results, rows = read("shipped"), []
    for name, pictures in on.items():
        bits, right = f"{results[name]['bits per dimension']:.3f}", f"{percent(results[name]['accuracy'])} %"
        head = {"shipped weights": f"`{name}`", "judged on": pictures}
        rows.append(head | {"bits per colour value, of 8": bits, "right labels": right})
    return block(rows, left=2)


def hybrid_in_short() -> str:
    row = read("shipped")["cpen455-hybrid"]
    alone = row["right alone"], row[f"{FIRST} right alone"]
    chance = f"these {sum(alone)} would split at least so unevenly in {percent(row['p'], 0)} of 100 cases"
    return (
        f"it alone is right {alone[0]} times and `{FIRST}` alone {alone[1]} times; "
        f"if both were equally good, {chance} (sign test)"
    )


def settings() -> str:
    results, rows = read("shipped"), []
    for name in WITH_SETTINGS:
        for flags, says in SETTINGS.items():
            row = results[name + flags]
            alone = f"{row['right alone']} to {row[f'{FIRST} right alone']}, {p_of(row)}" if "p" in row else ""
            rows.append({
                "setting": (says if name == FIRST else "") or f"`{name}{flags}`",
                "bits per dimension": f"{row['bits per dimension']:.3f}",
                "accuracy, %": percent(row["accuracy"], 2),
                "macro F1, %": percent(row["macro F1"], 2),
                "calibration error, %": percent(row["calibration error"]),
                "forward passes": str(row["forward passes"]),
                "right alone, p": alone,
            })  # fmt: skip
    return block(rows)


def p_of(row: dict) -> str:
    return p_value(row["p"]).removeprefix("p = ").removeprefix("p ")


def card(name: str) -> str:
    row = read("shipped")[name]
    said = f"{row['bits per dimension']:.3f} bits per dimension, accuracy {percent(row['accuracy'], 2)} %"
    return f"{said} (95 % interval {interval(row)} %), macro F1 {percent(row['macro F1'], 2)} %"


def pair(name: str) -> str:
    row = read("shipped")[name]
    alone = f"alone is right {row['right alone']} times, `{FIRST}` alone {row[f'{FIRST} right alone']} times"
    return f"it {alone}: {p_value(row['p'])} (sign test)"


# quality.json


def classifier() -> str:
    (cnn, own), (cnn_time, own_time) = quality("classification"), quality("time to classify")
    best = f"**{percent(cnn['accuracy'])} %**"
    rows = [
        ("accuracy (95 % interval)", f"{best} ({interval(cnn)})", f"{percent(own['accuracy'])} % ({interval(own)})"),
        ("calibration error, with a temperature fitted to 415 training pictures",
         *(f"{percent(row['with temperature'])} %" for row in (cnn, own))),
        ("time for a picture", f"**{cnn_time['ms an image']:.1f} ms**", f"{own_time['ms an image']:.0f} ms"),
    ]  # fmt: skip
    return block([dict(zip(("519 validation pictures", "CNN", "`cpen455`"), row, strict=True)) for row in rows])


def classifier_pairs() -> str:
    rows = [row for row in quality("paired tests") if row["B"] == "CNN"]
    pairs = [
        (f"CNN against `{row['A']}`", f"{row['B alone right']} to {row['A alone right']}", p_of(row)) for row in rows
    ]
    return block([
        dict(zip(("paired test on the same 519 pictures", "right alone", "p"), pair, strict=True)) for pair in pairs
    ])  # fmt: skip


def covered() -> str:
    def cells(key: str, of: list[dict]) -> dict[str, str]:
        return {
            who: percent(row[key]) + " %" * (row[key] is not None)
            for who, row in zip(("CNN", "`cpen455`"), of, strict=True)
        }

    found = quality("half covered")
    rows = [{"accuracy": "whole pictures"} | cells("whole", found[:2])]
    for of in (found[:2], found[2:]):
        rows.append(
            {"accuracy": f"{of[0]['missing']} grey, the grey taken as it is"} | cells("grey taken as it is", of)
        )
        rows.append({"accuracy": f"{of[0]['missing']} grey, only the visible rows summed"} | cells("grey left out", of))
    return block(rows)


def no_class() -> str:
    rows = []
    for row in quality("pictures of no class"):
        head = {"pictures": row["pictures"], "count": str(row["count"]), "bits per dimension": f"{row['bits/dim']:.2f}"}
        rows.append(head | {name: f"{row[name]:.2f}" for name in ("CNN, largest softmax", "log p(x)", "typicality")})
    return block(rows)


def moved() -> str:
    rows = []
    for row in quality("moved to the right"):
        shares = {"CNN": f"{percent(row['CNN'])} %", "`cpen455`": f"{percent(row['cpen455'])} %"}
        pixels = {"pixels, the edge repeated": str(row["pixels"])}
        rows.append(pixels | shares | {"bits per dimension": f"{row['bits/dim']:.2f}"})
    return block(rows, left=0)


def recognised() -> str:
    rows = quality("recognised")
    return block([
        {name: value if name == "class" else f"{percent(value)} %" for name, value in row.items()} for row in rows
    ])  # fmt: skip


def distances() -> str:
    rows = quality("Fréchet distance")
    return block([
        {name: value if name == "pictures" else f"{round(value, 1) + 0.0:.1f}" for name, value in row.items()}
        for row in rows
    ])  # fmt: skip


def worth() -> str:
    row = quality("what knowing the class is worth")[0]
    mean = f"{row['bits of a picture']:.2f} ± {row['standard error']:.2f} (standard error)"
    return f"the median over {row['count']} pictures is {row['median']:.2f} and the mean {mean}"


def picture_bits() -> str:
    return f"about {round(read('shipped')[FIRST]['bits per dimension'] * 3 * 32 * 32, -2):,.0f} bits"


def changed_by_calibration() -> str:
    row = next(row for row in quality("paired tests") if row["A"].startswith(f"{FIRST} --calibrate"))
    changed = f"{row['A alone right']} became right, {row['B alone right']} wrong"
    return f"{row['labels that differ']} of {row['count']} pictures here ({changed})"


def copies() -> str:
    rows: dict[str, dict[str, str]] = {}
    for row in quality("nearest training picture"):
        of, digits = rows.setdefault(row["pictures"], {"pictures": row["pictures"]}), 2 + (row["space"] == "features")
        of |= {f"{row['space']}, {which}": f"{row[which]:.{digits}f}" for which in ("median", "closest")}
    return block(list(rows.values()))


# results.json


def speed() -> str:
    results = read("results")
    return f"\nMeasured on {results['machine']}, {results['date']}.\n\n{table_of_times(results['rows'])}\n"


# recipes.json, recipes-longer.json, labels.json, drawing.json

TABLES = {
    "recipes": recipes.table,
    "recipes-longer": recipes.table,
    "labels": labels.table,
    "drawing": drawing.table,
}


def runs(name: str) -> str:
    return f"\n{TABLES[name](read(name))}\n"


PARTS: dict[str, Callable[[], str]] = {
    "shipped in short": shipped_in_short,
    "hybrid in short": hybrid_in_short,
    "shipped": shipped,
    "settings": settings,
    "classifier": classifier,
    "classifier pairs": classifier_pairs,
    "covered": covered,
    "no class": no_class,
    "moved": moved,
    "recognised": recognised,
    "distances": distances,
    "copies": copies,
    "speed": speed,
    "worth": worth,
    "picture bits": picture_bits,
    "changed by calibration": changed_by_calibration,
}
PARTS |= {name: functools.partial(runs, name) for name in TABLES}
PARTS |= {f"card {name}": functools.partial(card, name) for name in SHIPPED}
PARTS |= {f"pair {name}": functools.partial(pair, name) for name in SHIPPED}


def filled(text: str) -> str:
    """A page with the parts as they are now. Raises KeyError for a name that is none of theirs."""
    return MARKED.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[4]}", text)


def main() -> None:
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"))
        write_atomically(page, lambda path, text=text: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
