"""`python -m kit report RUN`: notebook 08 executed for a run, or for two side by side: one HTML page without links."""

import builtins
import re
import time
from pathlib import Path

from utils import UsageError
from utils.checkpoints import SHIPPED, write_atomically

from ..console import typed
from ..platforms import KIT, check_writable, find_weights, template

DIST = KIT / "dist"
NOT_SHOWN = {"badges", "bootstrap", "notebook-only"}  # tags of cells that are for the notebook's readers


def run(*runs: str, split: str = "validation", dataset: str | None = None, data_root: str | None = None) -> None:
    """one HTML page about a run, or about two side by side

    Args:
        runs: shipped weights, a run's name or a .safetensors file; two at most.
        split: `train`, `validation` or `test`.
        dataset: that of the run if not given; for shipped weights the one they were trained on.
        data_root: the data set's folder, when it is not where the kit looks.
    """
    started = time.perf_counter()
    names = [name for words in runs for name in names_in(words)]
    if not 1 <= len(names) <= 2:
        command = typed("report", "mine", "other")
        raise UsageError(f"RUN must name a run or shipped weights, or two: make report RUN=mine, or {command}")
    folders = [find_weights(name).parent for name in names]
    path = folders[0] / "report.html"
    run = (folders[0] / "config.json").is_file() and names[0] not in SHIPPED
    if len(names) == 2 or not run:
        path = DIST / ("report-" + "-".join(re.sub(r"[^\w.,=+]+", "-", name).strip("-") for name in names) + ".html")
    check_writable(path.parent)
    text = page(f"Report: {' and '.join(names)}", RUNS=names, SPLIT=split, DATASET=dataset, DATA_ROOT=data_root)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"{path}: {time.perf_counter() - started:.0f} s")


def names_in(words: str) -> list[str]:
    """make passes all of RUN as one, but a run's name may have a space in it."""
    try:
        find_weights(words)
    except UsageError:
        return words.split()
    return [words]


def page(title: str, **parameters) -> str:
    """Notebook 08 executed with these parameters: what it says and shows, without its code, as HTML. Raises UsageError,
    that of its cells, for wrong runs and data."""
    import nbformat
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    from notebooks import build

    notebook = nbformat.read(build.FOLDER / "08_report.ipynb", as_version=4)
    tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    tagged["parameters"].source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    first = f"sys.path[:] = [{str(KIT)!r}, *filter(None, sys.path)]"  # this kit, and nothing of the current folder
    tagged["bootstrap"].source = f"import sys\n{first}\n%matplotlib inline"
    try:
        build.execute(notebook, Path.cwd(), timeout=None)
    except CellExecutionError as error:
        kind = getattr(builtins, error.ename, None)
        if error.ename == "UsageError" or (isinstance(kind, type) and issubclass(kind, OSError)):
            raise UsageError(error.evalue) from None
        raise
    build.clean(notebook)
    notebook.cells = [cell for cell in notebook.cells if NOT_SHOWN.isdisjoint(cell.metadata.get("tags", []))]
    exporter = HTMLExporter(raw_template=template("report.html.j2"), exclude_input=True, exclude_output_prompt=True)
    return exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})[0]
