"""The two packages: what imports what, and how long a file may be."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# each may import those before it only
MODEL = (
    "mixture",
    "layers",
    "fusion",
    "model",
    "device",
    "cartoons",
    "pictures",
    "data",
    "checkpoints",
    "figures",
    "sampling",
)
MODEL += ("classify", "muon", "training")
MOST_LINES = {"utils": 350, "kit": 300, "kit/__main__.py": 120, "kit/wandb_log.py": 140}
MOST_LINES |= {"utils/sampling.py": 410}  # the naive and the cached way to draw the same picture, guided or not
EXERCISES = 800  # a notebook's: most of it tells wrong answers apart
MOST_LINES_IN_ALL = {"utils": 2_575, "kit": 6_365}
NOT_COUNTED = ("utils/__init__.py", "utils/__main__.py", "utils/muon.py", "kit/widgets", "kit/exercises")


def files(package: str, root: Path = ROOT) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


def name_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Every module of the two packages, and those of them that it names in an import, wherever in the file."""
    known = {name_of(file, root): file for package in ("utils", "kit") for file in files(package, root)}
    found: dict[str, set[str]] = {}
    for module, file in known.items():
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        named = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                named |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
        found[module] = (named & known.keys()) - {module}
    return found


def faults(root: Path = ROOT) -> list[str]:
    """What is wrong with the imports."""
    found = imports(root)
    wrong = [f"{m} imports {n}" for m in found for n in found[m] if m.startswith("utils") and n.startswith("kit")]
    for module in found.keys() & {f"utils.{name}" for name in MODEL}:
        above = {f"utils.{name}" for name in MODEL[: MODEL.index(module.removeprefix("utils."))]} | {"utils"}
        wrong += [f"{module} imports {name}, which is not above it" for name in found[module] - above]
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        wrong.append("a circle: " + " -> ".join(error.args[1]))
    return wrong


def test_imports_run_downwards_without_a_circle():
    assert faults() == []
    assert {f"utils.{name}" for name in MODEL} | {"utils", "utils.__main__"} == {m for m in imports() if "utils" in m}


@pytest.mark.parametrize(
    "file, line, words",
    [
        ("utils/model.py", "from kit.runs import RunConfig", "utils.model imports kit.runs"),
        ("utils/layers.py", "from .model import ModelConfig", "utils.layers imports utils.model, which is not above"),
        ("kit/runs.py", "def later():\n    from . import train", "a circle: "),
        ("kit/platforms.py", "import kit.commands.train", "a circle: "),
    ],
)
def test_a_fault_is_found(tmp_path, file, line, words):
    for each in (*files("utils"), *files("kit")):
        copy = tmp_path / each.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(each.read_text())
    (tmp_path / file).write_text((tmp_path / file).read_text() + f"\n{line}\n")
    assert any(words in fault for fault in faults(tmp_path))


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


@pytest.mark.parametrize("package", ["utils", "kit"])
def test_no_file_is_too_long(package):
    for file in files(package):
        name = str(file.relative_to(ROOT))
        most = EXERCISES if name.startswith("kit/exercises/") else MOST_LINES[package]
        assert lines(file) <= MOST_LINES.get(name, most), name
    counted = [file for file in files(package) if not str(file.relative_to(ROOT)).startswith(NOT_COUNTED)]
    assert sum(map(lines, counted)) <= MOST_LINES_IN_ALL[package]


def texts_without_encoding(source: str) -> list[str]:
    """The calls that open a text file, or read another process's text, in an encoding that is the machine's own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        named = {word.arg: word.value for word in node.keywords}
        mode = named.get("mode", node.args[1] if len(node.args) > 1 else ast.Constant("r"))
        binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
        # a function that is called, or handed to `partial`
        names = [part.attr for part in (node.func, *node.args) if isinstance(part, ast.Attribute)]
        text = {"read_text", "write_text"}.intersection(names) or "text" in named or "universal_newlines" in named
        opened = isinstance(node.func, ast.Name) and node.func.id == "open" and not binary
        if (text or opened) and "encoding" not in named:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("folder", ["utils", "kit", "benchmarks", "notebooks"])
def test_every_text_file_says_its_encoding(folder):
    """Windows' own is not UTF-8: a name or a sign that it lacks would be an error, or another one."""
    wrong = {str(file): texts_without_encoding(file.read_text(encoding="utf-8")) for file in files(folder)}
    assert {name: calls for name, calls in wrong.items() if calls} == {}


def test_a_missing_encoding_is_found():
    for call in (
        "open(path)",
        "open(path, 'a')",
        "path.read_text()",
        "path.read_text(errors='replace')",
        "path.write_text(text)",
        "partial(Path.write_text, data=text)",
        "subprocess.run(command, text=True)",
    ):
        assert texts_without_encoding(call) == [call]
        assert texts_without_encoding(f"{call[:-1]}, encoding='utf-8')".replace("(,", "(")) == []
    assert texts_without_encoding("open(path, 'rb'); Image.open(path); open(path, mode='wb')") == []
