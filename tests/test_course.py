"""The exported folder: scripts with the interface of the course's run in it, with nothing of this package in reach.

The stand-ins below are written for these tests. They have what matters of the course's: modules called `utils` and
`model`, star imports, float resizing without rounding, and marked blocks that the README's lines go into.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_model
from PIL import Image

from kit import course
from kit.__main__ import main
from utils import checkpoints
from utils.data import CPEN455_CLASSES

UTILS = """
import csv, os, torch
import numpy as np
from PIL import Image

CLASSES = {"Class0": 0, "Class1": 1, "Class2": 2, "Class3": 3}

def sample(*_):
    raise AssertionError("the scripts' own function, which nothing may replace")

log_prob = generate = mixture = parse_sites = sample
"""
CLASSIFICATION = """
import sys
from utils import *
from model import *

# Begin of your code
BLOCK_1
# End of your code

if __name__ == "__main__":
    device = torch.device("cpu")
    # Begin of your code
    BLOCK_2
    # End of your code
    model = model.to(device)
    model.load_state_dict(torch.load(os.path.join(os.path.dirname(__file__), "models/conditional_pixelcnn.pth")))
    model.eval()
    right = count = 0
    for path, label in csv.reader(open(sys.argv[1] + "/validation.csv")):
        x = torch.from_numpy(np.array(Image.open(os.path.join(sys.argv[1], path)))).float() / 255
        x = x.expand(3, -1, -1) if x.ndim == 2 else x.permute(2, 0, 1)
        x = torch.nn.functional.interpolate(x[None], (32, 32), mode="bilinear", antialias=True)
        answer = get_label(model, (x - 0.5) * 2, device)
        assert answer.shape == (1,) and answer.dtype == torch.int64
        right, count = right + int(answer == int(label)), count + 1
        print("label", path, int(answer))
    both = get_label(model, torch.zeros(3, 3, 32, 32), device)
    assert both.shape == (3,) and len(set(both.tolist())) == 1
    print("Accuracy:", right / count)
    assert all(sample is one for one in (log_prob, generate, mixture, parse_sites))
    print("modules:", *sys.modules)
"""
GENERATION = """
import os, torch
from utils import *
from model import *

# Begin of your code
BLOCK_1
# End of your code

if __name__ == "__main__":
    gen_data_dir = os.path.join(os.path.dirname(__file__), "samples")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in os.listdir(gen_data_dir):
        os.remove(os.path.join(gen_data_dir, name))
    # Begin of your code
    BLOCK_2
    # End of your code
    my_sample(model=model, gen_data_dir=gen_data_dir)
"""
ALLOWED = {"torch", "torchvision", "numpy", "pandas", "PIL", "bidict", "tqdm", "matplotlib", "scipy"}
ALLOWED |= {"pytorch_fid", "wandb"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "four.safetensors"
    checkpoints.save_model(small_model(torch.float32, num_classes=4, image_size=32, nr_filters=4), path)
    return path


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "course"
    assert (
        main(
            ["course-export", str(folder), "--checkpoint", str(weights), "--samples=2", "--guidance=2", "--device=cpu"]
        )
        == 0
    )
    return folder


def blocks(folder, script) -> list[str]:
    """The lines that the README wants in a script's two marked blocks."""
    text = (folder / "README.txt").read_text()
    return [re.search(rf"{script}, {which} block:\n\n((?:    .*\n)+)", text)[1] for which in ("first", "second")]


def run(folder, name, script, *arguments) -> str:
    first, second = blocks(folder, name)
    first = re.sub(r"^    ", "", first, flags=re.MULTILINE)
    (folder / "utils.py").write_text(UTILS)
    (folder / name).write_text(script.replace("BLOCK_1\n", first).replace("    BLOCK_2\n", second))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(folder / name), *map(str, arguments)],
        cwd=folder,
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def colourful(course_data) -> None:
    """Pictures that differ enough for a model to call them differently."""
    for n, row in enumerate((course_data / "validation.csv").read_text().splitlines()):
        name = course_data / row.split(",")[0]
        Image.new("L" if n == 1 else "RGB", (64, 64), 20 * n if n == 1 else (50 * n, 250 - 50 * n, 128)).save(name)


def test_the_scripts_accuracy_is_that_of_evaluate(exported, weights, course_data, capsys):
    colourful(course_data)
    said = run(exported, "classification_evaluation.py", CLASSIFICATION, course_data)
    capsys.readouterr()
    flags = ["--dataset=cpen455", "--data-root", str(course_data), "--device=cpu"]
    assert main(["evaluate", "--checkpoint", str(weights), *flags]) == 0
    accuracy = re.search(r"accuracy +([\d.]+)%", capsys.readouterr().out)[1]
    assert f"{float(re.search('Accuracy: (.*)', said)[1]):.2%}" == f"{accuracy}%"

    files = [str(course_data / row.split(",")[0]) for row in (course_data / "validation.csv").read_text().splitlines()]
    assert main(["classify", "--checkpoint", str(weights), "--device=cpu", *files]) == 0
    ours = [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    theirs = [CPEN455_CLASSES[int(label)] for label in re.findall(r"label \S+ (\d)", said)]
    assert theirs == ours and len(set(ours)) > 1
    modules = re.search("modules: (.*)", said)[1].split()
    assert "safetensors" not in modules and not any(name.startswith("utils.") for name in modules)


def test_the_script_draws_the_samples_that_are_there(exported):
    names = sorted(f"Class{c}_image_{n:02d}.png" for c in range(4) for n in (1, 2))
    before = {path.name: np.asarray(Image.open(path)) for path in (exported / "samples").iterdir()}
    assert sorted(before) == names and all(pixels.shape == (32, 32, 3) for pixels in before.values())
    run(exported, "generation_evaluation.py", GENERATION)
    after = {path.name: np.asarray(Image.open(path)) for path in (exported / "samples").iterdir()}
    assert sorted(after) == names and all(np.array_equal(before[name], after[name]) for name in names)


def test_single_file_needs_allowed_packages_only(exported):
    text = (exported / "model.py").read_text()
    imported = set(re.findall(r"^(?:from|import) ([\w.]+)", text, flags=re.MULTILINE))
    outside = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert outside <= ALLOWED and "torch" in outside and "from ." not in text
    state = torch.load(exported / "models" / "conditional_pixelcnn.pth", weights_only=True)
    assert all(type(tensor) is torch.Tensor for tensor in state.values())


def test_star_import_brings_what_the_readme_names(exported):
    code = "from model import *; print([n for n in dir() if not n.startswith('_')])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['draw_samples', 'get_label', 'load_model', 'new_model']"


def test_relative_imports_are_taken_out():
    source = '"""Doc."""\n\nfrom . import UsageError, mixture\nfrom .layers import (\n    A,\n    B,\n)\n\nimport os\n'
    expected = '"""Doc."""\n\nmixture = sys.modules[__name__]\n\nimport os\n'
    assert course.without_relative_imports(source) == expected


def test_wrong_settings(weights, tmp_path, capsys, monkeypatch):
    def refused(*flags, word):
        capsys.readouterr()
        assert main(["course-export", *map(str, flags)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and word in said.err, said.err

    out = tmp_path / "out"
    refused(out, "--checkpoint", weights, "--samples=0", word="--samples must be at least 1")
    checkpoints.save_model(small_model(torch.float32, num_classes=4), tmp_path / "small.safetensors")
    refused(out, "--checkpoint", tmp_path / "small.safetensors", word="small.safetensors reads 8x8")
    checkpoints.save_model(small_model(torch.float32, image_size=32), tmp_path / "three.safetensors")
    refused(out, "--checkpoint", tmp_path / "three.safetensors", word="has others: burger, panda, koala")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    refused(tmp_path / "used", "--checkpoint", weights, word="not empty")

    monkeypatch.setattr(course, "generate", lambda *_, **__: torch.zeros(4, 3, 32, 32))
    monkeypatch.setattr(
        course, "save_samples", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    refused(out, "--checkpoint", weights, "--samples=1", word="No space left on device")
    assert not out.exists() and sorted(p.name for p in tmp_path.iterdir()) == [
        "small.safetensors",
        "three.safetensors",
        "used",
    ]
