"""The numbers of the pages: every shipped file judged as `evaluate` judges it, and written where they belong."""

import json
import re

import pytest
import torch
from conftest import small_model

from benchmarks import page, shipped
from kit.__main__ import main
from kit.classifier import Classifier
from kit.scores import p_value
from utils import checkpoints


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_pages_say_what_was_measured(path):
    text = path.read_text(encoding="utf-8")
    assert page.filled(text) == text, "python -m benchmarks.page writes the numbers anew"
    assert len(page.MARKED.findall(text)) == text.count("<!-- ") / 2 > 0


def test_a_number_that_was_typed_is_replaced():
    text = page.PAGES[1].read_text(encoding="utf-8")
    for name, part in [(match[2], match[3]) for match in page.MARKED.finditer(text)]:
        last = list(re.finditer(r"\d", part))[-1].start()
        changed = part[:last] + str((int(part[last]) + 1) % 10) + part[last + 1 :]
        assert page.filled(text.replace(part, changed)) == text, name
    with pytest.raises(KeyError, match="nothing of that name"):
        page.filled("<!-- nothing of that name -->1<!-- / -->")


def test_rounding():
    assert page.percent(0.88631984) == "88.6" and page.percent(0.88631984, 2) == "88.63" and page.percent(None) == ""
    assert page.p_of({"p": 0.0806}) == "0.08" and page.p_of({"p": 1e-5}) == "< 0.0001"


@pytest.mark.parametrize("flags", ["", " --mirror", " --calibrate 8", " --mirror --calibrate 8"])
def test_shipped_files_are_judged_as_evaluate_judges_them(tmp_path, course_data, monkeypatch, capsys, flags):
    names = [str(tmp_path / f"{n}.safetensors") for n in "ab"]
    for name, filters in zip(names, (4, 5), strict=True):
        checkpoints.save_model(small_model(torch.float32, num_classes=4, nr_filters=filters), name)

    def log_likelihoods(self, _models, x):  # such that every setting changes the scores, even of so few pictures
        seed = names.index(self.checkpoint) + 10 * len(x)
        return torch.randn(2, len(x), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))[
            : 1 + self.mirror
        ]

    monkeypatch.setattr(Classifier, "log_likelihoods", log_likelihoods)
    monkeypatch.setattr(shipped, "SHIPPED", dict.fromkeys(names[::-1], "cpen455"))
    monkeypatch.setattr(shipped, "FIRST", names[0])
    monkeypatch.setattr(shipped, "WITH_SETTINGS", names[1:])
    monkeypatch.setattr(shipped, "CALIBRATE", 8)
    out = tmp_path / "shipped.json"
    out.write_text('{"of earlier weights": {}}')
    shipped.main(["--data-root", str(course_data), "--out", str(out)])
    results = json.loads(out.read_text())
    assert list(results) == [
        names[0],
        *(names[1] + f for f in ("", " --calibrate 8", " --mirror", " --mirror --calibrate 8")),
    ]

    capsys.readouterr()
    where = ["--dataset=cpen455", "--data-root", str(course_data), "--against", names[0]]
    assert main(["evaluate", "--checkpoint", names[1], *flags.split(), *where]) == 0
    said, row = capsys.readouterr().out, results[names[1] + flags]
    assert f"bits per dimension  {row['bits per dimension']:.4f}\n" in said
    share, low, high = (row[name] for name in ("accuracy", "95 % from", "to"))
    assert f"accuracy            {share:.2%}  of {row['count']}, 95 % interval {low:.1%} to {high:.1%}\n" in said
    assert f"macro F1            {row['macro F1']:.2%}\n" in said
    assert f"calibration error   {row['calibration error']:.2%}\n" in said
    alone = f"as above {row['right alone']}, {names[0]} plainly {row[f'{names[0]} right alone']} of {row['count']}"
    assert f"{alone}; sign test {p_value(row['p'])}\n" in said
