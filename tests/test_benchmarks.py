"""The benchmarks run, on sizes whose times mean nothing; and the plain path computes what the kit computes."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import plain
from utils import mixture

ROOT = Path(__file__).parents[1]


def test_they_run_and_leave_a_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--out", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tiny"] and len(results["rows"]) >= 12
    for row in results["rows"]:
        assert all(row[name] is None or row[name] > 0 for name in ("plain", "tuned", "floor"))
        assert f"| {row['what']} |" in done.stdout


def test_a_peer_that_is_not_there_is_refused(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--peer", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_the_plain_loss_is_the_kits_where_its_formula_is_exact():
    """At scales of some 30 levels no bin is so improbable that the textbook formula leaves its exact branch."""
    torch.manual_seed(0)
    params = 0.3 * torch.randn(2, 20, 4, 4, dtype=torch.float64)
    x = torch.randint(0, 256, (2, 3, 4, 4)).double() / 127.5 - 1
    params[:, 2:].view(2, 3, 3, 2, 4, 4)[:, :, 1] -= 1.5
    assert torch.allclose(plain.log_prob(params, x), mixture.log_prob(params, x), rtol=1e-4)
