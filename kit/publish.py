"""Publishes a copy of the kit where people run notebooks in a browser.

    make kaggle USERNAME=you            dist/kaggle/: data sets of the kit and the photographs, notebooks as kernels
    make colab REPOSITORY=you/kit       badges, first cells and a README that name the GitHub repository `you/kit`

Nothing is uploaded from here; what to type next is printed.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import nbformat

from notebooks import build
from utils import UsageError, data
from utils.checkpoints import write_atomically

from .console import any_letter
from .platforms import KIT, template

DATASET = "pixelcnn-kit"
NOTEBOOKS = sorted(build.FOLDER.glob("[0-9]*.ipynb"))


def kaggle(username: str) -> str:
    """Builds in dist/kaggle/ what `kaggle datasets create` and `kaggle kernels push` take; -> what to type next.

    The fields are those of the Kaggle CLI's docs/datasets_metadata.md and docs/kernels_metadata.md.
    Raises UsageError for a user name that Kaggle would not give, outside a git clone, and where some photographs are
    missing or damaged: dist/kaggle/ is then as it was.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", username):
        rule = "what follows kaggle.com/ in your profile's address, small letters and digits"
        raise UsageError(f"USERNAME must be {rule}: make kaggle USERNAME=you, not {username!r}")
    files = listed()
    photographs = find_photographs()
    out = KIT / "dist" / "kaggle"
    building = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    try:
        sources = [f"{username}/{DATASET}"]
        write_dataset(building / "dataset", sources[0], "PixelCNN kit", "MIT", KIT, files)
        if photographs:  # their repository names no licence
            sources.append(f"{username}/cpen455")
            write_dataset(building / "cpen455", sources[1], "CPEN 455 photographs", "unknown", *photographs)
        for path in NOTEBOOKS:
            folder = building / "kernels" / path.name[:2]
            write_json(kernel_metadata(path, username, sources), folder / "kernel-metadata.json")
            shutil.copyfile(path, folder / path.name)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    step = template("publish_photographs.txt" if photographs else "publish_no_photographs.txt").rstrip()
    steps = template("publish_kaggle.txt").rstrip().replace("{photographs}", step)
    return steps.format(username=username, dataset=DATASET, first=kernel_id(NOTEBOOKS[0]))


def listed() -> list[str]:
    """The kit's files, as git lists them. Raises UsageError outside a git clone, and where one of them is missing."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=KIT, capture_output=True, encoding="utf-8").stdout
    except FileNotFoundError:  # git is
        listing = ""
    files = sorted(filter(None, listing.split("\0")))
    if "kit/publish.py" not in files:
        raise UsageError("the kit is packed as git lists it, and git lists nothing here: work in a clone of the kit")
    if missing := [name for name in files if not (KIT / name).is_file()]:
        raise UsageError(f"{missing[0]} is missing: git checkout {missing[0]}")
    return files


def find_photographs() -> tuple[Path, list[str]] | None:
    """The folder of the course's data and the files that belong to it, each of them read; None if it is not there."""
    try:
        root = data.find_cpen455()
    except UsageError:
        return None
    pictures = [name for split in data.SPLITS for name in data.load_split("cpen455", split, root).names]
    return root, [*(f"{split}.csv" for split in data.SPLITS), *pictures]


def write_dataset(folder: Path, slug: str, title: str, licence: str, root: Path, files: list[str]) -> None:
    """Metadata and an archive; the same files give the same bytes: no dates, modes or names of the machine in it."""
    write_json({"title": title, "id": slug, "licenses": [{"name": licence}]}, folder / "dataset-metadata.json")
    with zipfile.ZipFile(folder / f"{Path(slug).name}.zip", "w") as file:
        for name in files:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # an ordinary file, on any system
            file.writestr(entry, (root / name).read_bytes(), zipfile.ZIP_DEFLATED)


def title(notebook: Path) -> str:
    return f"PixelCNN kit {notebook.stem.replace('_', ' ')}"


def kernel_id(notebook: Path) -> str:
    """What Kaggle makes of a title of letters, digits and spaces; a kernel's id must be that."""
    return title(notebook).lower().replace(" ", "-")


def kernel_metadata(notebook: Path, username: str, sources: list[str]) -> dict:
    """A private kernel with one T4 and no internet: kit and photographs are data sets, packages in Kaggle's image."""
    about = {"id": f"{username}/{kernel_id(notebook)}", "title": title(notebook), "code_file": notebook.name}
    return about | json.loads(template("publish_kernel.json")) | {"dataset_sources": sources}


def write_json(values: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def colab(repository: str) -> str:
    """Writes the repository's name into build.py, badges, first cells and the README's line that clones; -> the
    addresses and what to type next.

    Raises UsageError for what cannot be a GitHub repository; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*/(?!\.{1,2}$)[\w.-]+(?<!\.git)", repository, re.ASCII):
        rule = "the account and the repository on GitHub, as in make colab REPOSITORY=you/kit"
        raise UsageError(f"REPOSITORY must be {rule}, not {repository!r}")
    source = Path(build.__file__).read_text(encoding="utf-8")
    source, found = re.subn(r'^REPOSITORY = ".*"$', f'REPOSITORY = "{repository}"', source, flags=re.MULTILINE)
    assert found == 1, "build.py has no line REPOSITORY"
    build.REPOSITORY = repository
    stamped = {Path(build.__file__): source}
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        build.stamp(notebook, path.name)
        stamped[path] = nbformat.writes(notebook) + "\n"
    readme = KIT / "README.md"
    clone = f"git clone https://github.com/{repository}\ncd {repository.partition('/')[2]}"
    stamped[readme] = re.sub(r"git clone https://github\.com/\S+\ncd \S+", clone, readme.read_text(encoding="utf-8"))
    for path, text in stamped.items():
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    address = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks"
    steps = template("publish_colab.txt").rstrip().format(repository=repository)
    return "\n".join([*(f"{address}/{path.name}" for path in NOTEBOOKS), steps])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", choices=["kaggle", "colab"])
    parser.add_argument("name", help="the Kaggle user name, or the GitHub repository")
    any_letter()
    args = parser.parse_args(arguments)
    try:
        print({"kaggle": kaggle, "colab": colab}[args.place](args.name))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
