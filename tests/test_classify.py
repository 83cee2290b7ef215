"""Bayes' rule and the scores, against numbers worked out by hand."""

import math

import pytest
import torch
from conftest import random_pictures, small_model

from utils import UsageError, mixture
from utils.classify import (
    CLOSE,
    calibration_curve,
    calibration_error,
    class_log_likelihoods,
    evidence_map,
    fit_calibration,
    fit_temperature,
    log_posterior,
    score,
)


def test_log_likelihoods_are_those_of_each_label():
    model, x = small_model(fusion="all"), random_pictures(5)
    out = class_log_likelihoods(model, x, batch_size=2)
    assert out.shape == (5, 3)
    for i in range(5):
        for label in range(3):
            with torch.no_grad():
                params = model(x[i : i + 1], torch.tensor([label]))
            assert out[i, label].item() == pytest.approx(mixture.log_prob(params, x[i : i + 1]).item(), rel=1e-12)


def test_near_ties_are_settled_in_float32():
    """In bfloat16 every label near the likeliest is computed again; what is far behind, or alone, is not."""
    model, x = small_model(torch.float32, fusion="all"), random_pictures(12).float()
    exact = class_log_likelihoods(model, x)
    mixed = class_log_likelihoods(model, x, batch_size=5, precision=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rough = class_log_likelihoods(model, x)
    behind = rough.amax(dim=1, keepdim=True) - rough
    close = (behind < CLOSE) & ((behind < CLOSE).sum(1, keepdim=True) > 1)
    assert close.any() and not close.all()
    assert torch.allclose(mixed[close], exact[close], rtol=1e-6) and not torch.allclose(rough, exact, rtol=1e-6)
    assert torch.equal(mixed[~close], rough[~close])


def test_progress_counts_every_picture():
    seen = []
    class_log_likelihoods(small_model(), random_pictures(5), batch_size=2, progress=seen.append)
    assert seen == [2, 2, 1]


def test_bayes_rule_by_hand():
    likelihoods = torch.tensor([[0.2, 0.1, 0.4]], dtype=torch.float64)
    uniform = log_posterior(likelihoods.log()).exp()
    assert torch.allclose(uniform, likelihoods / 0.7)
    prior = torch.tensor([6.0, 2.0, 2.0])  # need not be normalised
    expected = torch.tensor([[0.12, 0.02, 0.08]], dtype=torch.float64) / 0.22
    assert torch.allclose(log_posterior(likelihoods.log(), prior).exp(), expected)
    never = log_posterior(likelihoods.log(), torch.tensor([1.0, 1.0, 0.0])).exp()
    assert never[0, 2] == 0 and never.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("prior", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [math.nan, 1.0, 1.0]])
def test_bad_priors(prior):
    with pytest.raises(UsageError, match="prior"):
        log_posterior(torch.zeros(1, 3), torch.tensor(prior))


def test_scores_by_hand():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1])
    predictions = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    scores = score(predictions, labels, 3)
    assert scores.count == 6
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert scores.recall == pytest.approx([2 / 3, 1 / 2, 1])
    # F1: 2*2/(3+2), 2*1/(2+2), 2*1/(1+2)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_scores_without_any_known_label():
    scores = score(torch.tensor([0, 1]), torch.tensor([-1, -1]), 2)
    assert scores.count == 0 and math.isnan(scores.accuracy) and math.isnan(scores.macro_f1)


def test_a_class_that_is_not_there():
    scores = score(torch.tensor([0, 0]), torch.tensor([0, 0]), 2)
    assert scores.accuracy == 1.0 and scores.macro_f1 == 0.5 and math.isnan(scores.recall[1])


def test_evidence_sums_to_the_difference_of_the_log_likelihoods():
    model, x = small_model(fusion="all"), random_pictures(1)
    nats = class_log_likelihoods(model, x)[0]
    evidence = evidence_map(model, x[0], 2, 0)
    assert evidence.shape == (8, 8)
    assert evidence.sum().item() == pytest.approx((nats[2] - nats[0]).item(), rel=1e-9)


def test_calibration_by_hand():
    posterior = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    assert calibration_curve(posterior, labels) == [
        (pytest.approx(0.6), 1.0, 1),
        (pytest.approx(2.9 / 3), pytest.approx(2 / 3), 3),
    ]
    assert calibration_error(posterior, labels) == pytest.approx((0.4 + 3 * (2.9 / 3 - 2 / 3)) / 4)


def test_the_temperature_undoes_a_factor():
    """Labels are drawn from softmax(z); seeing 50 z, the best temperature is 50."""
    z = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.multinomial(z.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    assert fit_temperature(50 * z, labels) == pytest.approx(50, rel=0.06)


def test_calibration_finds_what_was_put_in():
    """Labels drawn from softmax(nats / 50 + b): many of them give both back."""
    generator = torch.Generator().manual_seed(0)
    nats = 100 * torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    bias = torch.tensor([0.5, -0.2, -0.3], dtype=torch.float64)
    labels = torch.softmax(nats / 50 + bias, dim=1).multinomial(1, generator=generator)[:, 0]
    temperature, found = fit_calibration(nats, labels)
    assert temperature == pytest.approx(50, rel=0.05)
    assert found.tolist() == pytest.approx(bias.tolist(), abs=0.06)


def test_calibration_corrects_skewed_predictions():
    """Class 0 is 30 nats too likely throughout: a bias gives the lost third of the labels back."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 3
    nats = 5 * torch.randn(3000, 3, generator=generator, dtype=torch.float64)
    nats[torch.arange(3000), labels] += 25
    skewed = nats + torch.tensor([30.0, 0.0, 0.0])
    temperature, bias = fit_calibration(skewed, labels)
    before, after = (score(logits.argmax(1), labels, 3).accuracy for logits in (skewed, skewed / temperature + bias))
    assert before < 0.7 and after > 0.98
