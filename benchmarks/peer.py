"""Rows: the course's starter code, from a checkout, on the same sizes: `--peer DIR`."""

import subprocess
import sys
from pathlib import Path

from .common import Row, Setting

# runs in a process of its own, inside the checkout, whose modules are called as this kit's are
SCRIPT = """
import statistics, sys, time
import torch
sys.path.insert(0, ".")
from model import PixelCNN
from utils import discretized_mix_logistic_loss
filters, resnets, mixtures, size = map(int, sys.argv[1:])
model = PixelCNN(nr_resnet=resnets, nr_filters=filters, nr_logistic_mix=mixtures, input_channels=3)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
def step(batch):
    x = torch.rand(batch, 3, size, size) * 2 - 1
    loss = discretized_mix_logistic_loss(x, model(x))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
def forward(batch):
    with torch.no_grad():
        model(torch.zeros(batch, 3, size, size), sample=True)
for work, batch in ((step, 16), (forward, 1), (forward, 25)):
    work(batch)
    times = []
    for _ in range(3):
        started = time.perf_counter(); work(batch); times.append(time.perf_counter() - started)
    print(statistics.median(times))
"""


def rows(setting: Setting, checkout: Path):
    config = setting.model().config
    sizes = (config.nr_filters, config.nr_resnet, config.nr_logistic_mix, config.image_size)
    command = [sys.executable, "-c", SCRIPT, *map(str, sizes)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        yield Row("starter code", None, None, None, f"did not run: {last}")
        return
    step, one, many = map(float, done.stdout.split()[-3:])
    pixels = config.image_size**2
    yield Row("starter code: training step, batch 16", step, None, None, f"{16 / step:.1f} images/s")
    for batch, time in ((1, one), (25, many)):
        note = f"{pixels} times one forward pass of {time:.2f} s"
        yield Row(f"starter code: {batch} samples", pixels * time, None, None, note)
