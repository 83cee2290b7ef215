"""The X-ray: it sees what an independent finite difference sees, and every leak where it must be."""

import io

import matplotlib
import pytest
import torch
from conftest import pixels
from PIL import Image
from torch import nn

from kit.widgets import base
from kit.widgets.xray import SIZE, CausalityXray, gradient_at

matplotlib.use("agg")


@pytest.fixture
def panel(monkeypatch) -> CausalityXray:
    monkeypatch.setattr(base, "show", lambda _widget, _png, _update: None)
    blurred = nn.Conv2d(3, 2, 3, padding=1).double()
    return CausalityXray({"not causal": blurred})


def past(row: int, column: int) -> torch.Tensor:
    return torch.arange(SIZE**2).view(SIZE, SIZE) < row * SIZE + column


def test_the_gradient_is_where_a_change_is_felt(panel):
    """At an output and an inner depth: change each input pixel, look whether the output changes."""
    for depth, stream in [("", 1), ("4, at 8x8", 0)]:
        row, column = 6, 4

        def network(x, depth=depth, stream=stream):
            with torch.no_grad():
                return panel.network(x, depth, stream)

        x = torch.randn(1, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        changed = x.repeat(SIZE**2, 1, 1, 1)
        changed.flatten(2)[torch.arange(SIZE**2), :, torch.arange(SIZE**2)] += 0.5
        difference = (network(changed) - network(x)).abs()
        seen, scale = gradient_at(lambda x, d=depth, s=stream: panel.network(x, d, s), row, column)
        felt = difference[:, :, row // scale, column // scale].sum(dim=1).view(SIZE, SIZE)
        assert scale == SIZE // difference.shape[-1]
        assert torch.equal(seen > 0, felt > 0)


@pytest.mark.parametrize("row,column", [(0, 0), (5, 15), (8, 0), (11, 6)])
def test_the_sound_network_does_not_leak_and_each_fault_leaks_in_its_way(panel, row, column):
    leaks = {}
    for fault, broken in panel.faults.items():
        with broken:
            seen, _ = gradient_at(panel.network, row, column)
        leaks[fault] = (seen > 0) & ~past(row, column)
    assert not leaks["none"].any()
    own = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    own[row, column] = True
    assert torch.equal(leaks["no right_shift"], own), "it sees its own pixel and nothing later"
    assert leaks["no down_shift"].any() and leaks["no down_shift"].nonzero()[:, 0].unique().tolist() == [row]
    assert leaks["padded on the right"].any() == (column < 15)
    assert leaks["upsampled a row early"].any() == (row % 2 == 1)
    assert not ((gradient_at(panel.network, row, column)[0] > 0) & ~past(row, column)).any(), "the fault is repaired"


def test_the_vertical_stream_sees_only_rows_above(panel):
    for depth in panel.pairs:
        seen, scale = gradient_at(lambda x, d=depth: panel.network(x, d, 0), 8, 8)
        assert not seen[8:].any(), depth
        assert seen[:8, 9:].any() or scale > 1


def test_every_control_changes_the_picture_and_back(panel):
    first = pixels(panel.picture.value)
    for name, other in {
        "row": 3,
        "column": 12,
        "depth": "4, at 8x8",
        "stream": 0,
        "fault": "no down_shift",
        "network": "not causal",
    }.items():
        before = panel.controls[name].value
        panel.controls[name].value = other
        assert pixels(panel.picture.value) != first, name
        panel.controls[name].value = before
        assert pixels(panel.picture.value) == first, name


def test_the_leak_is_painted(panel):
    def orange() -> int:
        picture = Image.open(io.BytesIO(panel.picture.value)).convert("RGB")
        return sum(count for count, colour in picture.getcolors(1 << 20) if colour == (0xD5, 0x5E, 0x00))

    assert orange() == 0
    panel.controls["fault"].value = "no down_shift"
    painted = orange()
    assert painted > 500
    panel.controls["column"].value = 1  # more of its own row is the future now
    assert orange() > painted
