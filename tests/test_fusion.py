"""Each site changes what it says and nothing before it."""

import pytest
import torch
from conftest import random_pictures, small_model

from utils import UsageError
from utils.fusion import SITES, parse_sites
from utils.model import ConditionalPixelCNN, ModelConfig


def test_sites_are_parsed_in_one_order():
    assert parse_sites("late, early") == ("early", "late")
    assert parse_sites(["film", "report"]) == ("early", "upstream", "middle", "late", "film")
    assert parse_sites("all") == SITES and parse_sites("none") == ()


@pytest.mark.parametrize("bad", ["lat", "", "early;late", ["early", 3]])
def test_unknown_sites_are_refused(bad):
    with pytest.raises(UsageError, match="unknown fusion site"):
        parse_sites(bad)


@pytest.mark.parametrize("sites", SITES)
def test_each_site_makes_the_class_matter(sites):
    model, x = small_model(fusion=sites), random_pictures(1)
    outputs = [model(x, torch.tensor([label])) for label in range(3)]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[1], outputs[2])


def test_without_a_site_the_class_does_not_matter():
    model, x = small_model(fusion="none"), random_pictures(1)
    assert torch.equal(model(x, torch.tensor([0])), model(x, torch.tensor([2])))


def test_a_fresh_model_does_not_know_the_classes():
    plain = small_model(fusion="none")
    model = ConditionalPixelCNN(ModelConfig(3, 1, 6, 2, 8, 0.0, SITES)).double()
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("fusion.") for name in missing)
    x, y = random_pictures(2), torch.tensor([0, 1])
    assert torch.allclose(model(x, y), plain(x, y), atol=1e-12)


def test_late_adds_its_row_to_the_output():
    model, x = small_model(fusion="late"), random_pictures(2)
    difference = model(x, torch.tensor([1, 1])) - model(x, torch.tensor([0, 0]))
    table = model.fusion.maps["params"].weight
    assert torch.allclose(difference, (table[1] - table[0])[None, :, None, None].expand_as(difference))


def test_early_adds_its_picture_to_the_input():
    model, x = small_model(fusion="early"), random_pictures(2)
    plain = small_model(fusion="none")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fusion.")})
    picture = model.fusion.maps["x"].weight[2].view(3, 8, 8)
    y = torch.tensor([2, 2])
    assert torch.allclose(model(x, y), plain(x + picture, y))


def test_film_scales_and_shifts_before_the_gate():
    """The last block of the ul stream, recomputed by hand."""
    model = small_model(fusion="film,blocks")
    block = model.up_blocks[0][-1].ul
    modulation = model.fusion.modulations(torch.tensor([1]))[-1]
    h, skip = torch.randn(1, 6, 8, 8).double(), torch.randn(1, 12, 8, 8).double()
    seen = []
    block.conv_out.conv.register_forward_hook(lambda _m, _x, out: seen.append(out))
    out = block(h, skip, modulation)
    maps = {name: table.weight[1, -12:] for name, table in model.fusion.maps.items()}
    c = seen[0][0] * (1 + maps["scale"])[:, None, None] + (maps["shift"] + maps["bias"])[:, None, None]
    assert torch.allclose(out[0], h[0] + c[:6] * torch.sigmoid(c[6:]))
