"""`python -m kit report RUN`: notebook 08 executed for a run, or for two side by side: one HTML page without links.

The page of one run is `report.html` in its folder; that of shipped weights, or of two runs, lies in `dist/`.
"""

import re
import time
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from traitlets.config import Config

from notebooks import build
from utils import UsageError
from utils.checkpoints import write_atomically

from ..platforms import KIT, find_weights

NOTEBOOK = build.FOLDER / "08_report.ipynb"
DIST = KIT / "dist"
TEMPLATE = """\
{% extends 'basic/index.html.j2' %}
{% block header %}<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ resources.metadata.name | escape }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top; }
img { max-width: 100%; height: auto; }
h2 { margin-top: 2.5rem; break-after: avoid; }
.anchor-link { display: none; }
.cell { break-inside: avoid; }
</style></head><body>{% endblock %}
{% block footer %}</body></html>
{% endblock %}"""


def parametrised(values: dict) -> nbformat.NotebookNode:
    """The notebook with these parameters, its first cell taking this kit wherever it is executed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = {
        "parameters": "\n".join(f"{name} = {value!r}" for name, value in values.items()),
        "bootstrap": f"import sys\nsys.path.insert(0, {str(KIT)!r})\n%matplotlib inline",
    }
    for cell in notebook.cells:
        for tag in sources.keys() & set(cell.metadata.get("tags", [])):
            cell.source = sources.pop(tag)
    assert not sources, f"{NOTEBOOK.name} has no cell tagged {', '.join(sources)}"
    return notebook


def to_html(notebook: nbformat.NotebookNode, title: str) -> str:
    """What the notebook says and shows, without its code and without what is for its readers alone."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = ("badges", "bootstrap", "notebook-only")
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, exclude_input=True, exclude_output_prompt=True)
    return exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})[0]


def report(runs: list[str], split: str, dataset: str | None, data_root: str | None) -> Path:
    """Executes, and writes the page. Raises UsageError for wrong runs and data; nothing is written then."""
    if not 1 <= len(runs) <= 2:
        raise UsageError('RUN must name a run or shipped weights, or two: make report RUN=mine, RUN="mine other"')
    folders = [find_weights(name).parent for name in runs]
    name = "-".join(re.sub(r"[^\w.,=+]+", "-", name).strip("-") for name in runs)
    page = DIST / f"report-{name}.html"
    if len(runs) == 1 and (folders[0] / "config.json").is_file():
        page = folders[0] / "report.html"
    notebook = parametrised({"RUNS": runs, "SPLIT": split, "DATASET": dataset, "DATA_ROOT": data_root})
    try:
        build.execute(notebook, Path.cwd(), timeout=None)
    except CellExecutionError as error:
        if error.ename == "UsageError":
            raise UsageError(error.evalue) from None
        raise
    build.clean(notebook)
    text = to_html(notebook, f"Report: {' and '.join(runs)}")
    write_atomically(page, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return page


def run(*runs: str, split: str = "validation", dataset: str | None = None, data_root: str | None = None) -> None:
    """one HTML page about a run, or about two side by side

    Args:
        runs: shipped weights, a run's name or a .safetensors file; two at most.
        split: `train`, `validation` or `test`.
        dataset: that of the run if not given; for shipped weights the one they were trained on.
        data_root: the data set's folder, when it is not where the kit looks.
    """
    started = time.perf_counter()
    names = [name for typed in runs for name in typed.split()]  # make passes all of RUN as one
    page = report(names, split, dataset, data_root)
    print(f"{page}: {time.perf_counter() - started:.0f} s")
