"""`make notebooks`: stamps the badges and the first cell into every notebook, executes all of them in place, cleans.

    python -m notebooks.build [NOTEBOOK ...]      all of them by default
    python -m notebooks.build --stamp             only the badges and the first cell

What is committed carries no widget state and no widget views: a static picture stands where a widget would be.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kit.console import any_letter

FOLDER = Path(__file__).resolve().parent
# the one setting: where the kit is published; `make colab REPOSITORY=you/kit` changes it, here and in the notebooks
REPOSITORY = "YOUR-ACCOUNT/pixelcnn-kit"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

BADGES = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})
[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]\
(https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/main/notebooks/{name})"""

BOOTSTRAP = """\
# The same first cell in every notebook: it puts the kit first on the path, the one that this notebook lies in, else the
# newest that is attached on Kaggle or was cloned before, else a new clone. Packages that are missing are installed, but
# never PyTorch, which is the platform's.
import importlib.util, re, subprocess, sys, tempfile
from pathlib import Path

here = Path.cwd()
beside = [place for place in (here.parent, here) if (place / "utils/mixture.py").is_file()]
folders = [here / "pixelcnn-kit", Path("/kaggle/input")]
kits = beside[:1] or [file.parents[1] for folder in folders for file in sorted(folder.glob("**/utils/mixture.py"))]
init = "utils/__init__.py"  # its text names the version; a kit without one is the oldest
versions = {kit: re.findall('__version__ = "([0-9]+)[.]([0-9]+)[.]([0-9]+)"', (kit / init).read_text()) for kit in kits}
root = max(kits, default=None, key=lambda kit: [[*map(int, version)] for version in versions[kit]])
if root is None:
    clone = "git clone --depth=1 https://github.com/{repository}"
    unpublished = True, "or publish it with make colab REPOSITORY=you/kit"
    with tempfile.TemporaryDirectory(dir=here) as folder:  # half a clone is never taken for the kit
        failed, why = unpublished if "/YOUR-" in clone else subprocess.getstatusoutput(f'{clone} "{folder}/kit" -q')
        if failed:
            raise SystemExit(f"The kit is missing: on Kaggle attach it (Add Input), elsewhere work in a clone; {why}")
        root = Path(folder, "kit").rename(here / "pixelcnn-kit")
sys.path.insert(0, str(root))
for name in [name for name in sys.modules if name.partition(".")[0] in ("utils", "kit")]:
    del sys.modules[name]  # another package of that name
for module in ["safetensors", "tqdm", "matplotlib", "ipywidgets", "scipy"]:
    if importlib.util.find_spec(module) is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", module], check=True)
if len(kits) > 1:
    print(f"Of {len(kits)} kits the newest is taken: {root}, version {'.'.join(*versions[root] or [['unknown']])}")
%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]"""


def stamp(notebook: nbformat.NotebookNode, name: str) -> None:
    """Writes the badges and the first cell, which are the cells tagged so."""
    texts = {
        "badges": BADGES.format(repository=REPOSITORY, name=name),
        "bootstrap": BOOTSTRAP.replace("{repository}", REPOSITORY),
    }
    for cell in notebook.cells:
        for tag in texts.keys() & set(cell.metadata.get("tags", [])):
            cell.source = texts.pop(tag)
            if tag == "bootstrap":
                cell.metadata["jupyter"] = {"source_hidden": True}  # nobody needs to read it to go on
    if texts:
        raise SystemExit(f"error: {name} has no cell tagged {', '.join(texts)}")


def execute(notebook: nbformat.NotebookNode, folder: Path = FOLDER, timeout: int | None = 900) -> None:
    """Runs every cell in a new kernel, in `folder`, each for `timeout` seconds at most; stops at the first error."""
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", store_widget_state=False, record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: each start would warn of a connection by TCP
        resources={"metadata": {"path": str(folder)}},
    ).execute()  # fmt: skip


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leaves what reads well without a kernel: no widget state, no views of it, no progress bars."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in list(cell.outputs):
                data = output.get("data", {})
                data.pop("image/jpeg", None)  # pictures come as PNG as well
                if data.pop(WIDGET_VIEW, None) and set(data) <= {"text/plain"}:  # a progress bar
                    cell.outputs.remove(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--stamp", action="store_true")
    any_letter()
    args = parser.parse_args()
    for path in args.notebooks or sorted(FOLDER.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        stamp(notebook, path.name)
        started = time.perf_counter()
        if not args.stamp:
            try:
                execute(notebook)
            except CellExecutionError as error:
                print(f"error: {path.name}: {error}", file=sys.stderr)
                return 1
            clean(notebook)
            print(f"{path.name}: {time.perf_counter() - started:.0f} s")
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
