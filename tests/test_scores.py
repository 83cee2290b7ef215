"""The interval of an accuracy, against Wilson's formula worked out here."""

import math

import pytest

from kit.scores import wilson_interval


@pytest.mark.parametrize("hits, count", [(441, 519), (0, 1), (1, 1), (0, 40), (40, 40), (1, 3), (25_000, 50_000)])
def test_wilsons_interval(hits, count):
    """(p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n), z the normal distribution's 97.5 % quantile."""
    p, z = hits / count, 1.959963984540054
    half = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    by_hand = [(p + z**2 / (2 * count) + side * half) / (1 + z**2 / count) for side in (-1, 1)]
    low, high = wilson_interval(hits, count)
    assert [low, high] == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    assert 0 <= low < high <= 1
