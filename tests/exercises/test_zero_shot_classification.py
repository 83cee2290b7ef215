"""The exercises of notebook 05."""

import math

import numpy as np
import torch
from common import check_exercise, said
from scipy.stats import binomtest

from kit.exercises import zero_shot_classification as exercises


def test_posterior():
    def plainly(log_likelihoods, prior):
        joint = log_likelihoods.exp() * prior
        return joint / joint.sum(dim=1, keepdim=True)

    def no_prior(log_likelihoods, prior):
        return torch.softmax(log_likelihoods, dim=1)

    def prior_as_it_is(log_likelihoods, prior):
        return torch.softmax(log_likelihoods + prior, dim=1)

    def logs(log_likelihoods, prior):
        return torch.log_softmax(log_likelihoods + prior.log(), dim=1)

    def over_pictures(log_likelihoods, prior):
        return torch.softmax(log_likelihoods + torch.log(prior + 1e-9), dim=0)

    def prior_after(log_likelihoods, prior):
        return torch.softmax(log_likelihoods, dim=1) * prior

    def half_the_evidence(log_likelihoods, prior):
        return torch.softmax(log_likelihoods / 2 + prior.log(), dim=1)

    def labels(log_likelihoods, prior):
        return (log_likelihoods + prior.log()).argmax(dim=1)

    def less_the_mean(log_likelihoods, prior):
        joint = (log_likelihoods - log_likelihoods.mean(dim=1, keepdim=True)).exp() * prior
        return joint / joint.sum(dim=1, keepdim=True)

    def two_pictures(log_likelihoods, prior):
        return torch.tensor([[0.4, 0.6, 0.4, 0.0], [0.8, 0.2, 0.4, 0.0]]) / 1.4

    def prior_of_the_example(log_likelihoods, prior):
        if prior.shape == (4,) and prior[3] == 0:
            return torch.softmax(log_likelihoods + prior.log(), dim=1)
        return torch.softmax(log_likelihoods, dim=1)

    wrong = {
        "0 / 0 is NaN": plainly,
        "then no exponential overflows": less_the_mean,
        "1 pictures, ": two_pictures,
        "the prior has no effect": prior_of_the_example,
        "not ndarray": lambda log_likelihoods, prior: np.asarray(no_prior(log_likelihoods, prior)),
        "the prior has no effect; a label whose prior is 0": no_prior,
        "belongs its logarithm": prior_as_it_is,
        "these are logarithms": logs,
        "should sum to 1, but row 0 sums to 4": over_pictures,
        "after the prior is in": prior_after,
        "was expected, not": half_the_evidence,
        "the shape is (2,)": labels,
    }
    check_exercise(exercises.posterior, lambda log_likelihoods, prior: None, wrong)
    assert said(exercises.posterior.check, lambda nats, prior: torch.softmax(nats.float() + prior.log(), 1)) == "Right."


def test_macro_f1():
    def recall(c):
        return c.diag() / c.sum(dim=1)

    def precision(c):
        return c.diag() / c.sum(dim=0)

    def of_means(c):
        r, p = recall(c).mean(), precision(c).mean()
        return 2 * r * p / (r + p)

    def f1(c):
        return 2 * c.diag() / (c.sum(dim=0) + c.sum(dim=1))

    wrong = {
        "that is the accuracy": lambda c: c.diag().sum() / c.sum(),
        "that is the mean recall": lambda c: recall(c).mean(),
        "that is the mean precision": lambda c: float(precision(c).mean()),
        "F1 of the mean precision": of_means,
        "were weighted": lambda c: (f1(c) * c.sum(dim=1)).sum() / c.sum(),
        "neither there nor predicted": lambda c: f1(c).mean(),
        "a number was expected, not Tensor. It is the mean": f1,
        "the answer is": lambda c: 0.5 * f1(c).mean(),
        "that is the sum": lambda c: f1(c).sum(),
        "that is per cent": lambda c: 100 * f1(c).mean(),
        "counts as 0; for the rows": lambda c: f1(c).nan_to_num().sum() / 3,
        "a fourth class that is": lambda c: (12 / 16 + 2 / 7 + 10 / 17) / 3,
        "for the rows [[": lambda c: f1(c).nan_to_num().sum() / (3 if len(c) == 3 else 4),
    }
    check_exercise(exercises.macro_f1, lambda c: None, wrong)
    for kind in (np.float32, np.array, torch.tensor, float):
        assert said(exercises.macro_f1.check, lambda c, kind=kind: kind(exercises.macro_f1.answer(c))) == "Right."


def test_expected_calibration_error():
    def gaps(confidence, right, nr_bins, close_top=True):
        bins = (confidence * nr_bins).long()
        bins = bins.clamp(max=nr_bins - 1) if close_top else bins
        for b in range(nr_bins):
            here = bins == b
            yield here.sum(), confidence[here].mean() - right[here].float().mean()

    def weighted(confidence, right, nr_bins, close_top=True, absolute=True):
        total = 0.0
        for count, gap in gaps(confidence, right, nr_bins, close_top):
            total += float(count * (gap.abs() if absolute else gap)) / len(right) if count else 0.0
        return total

    def own_bin_for_1(confidence, right, nr_bins):
        bins = (confidence * nr_bins).long()
        error = 0.0
        for b in bins.unique():
            error += float((confidence - right.float())[bins == b].sum().abs()) / len(right)
        return error

    def every_bin_the_same(confidence, right, nr_bins):
        found = [gap.abs() for count, gap in gaps(confidence, right, nr_bins) if count]
        return sum(found) / len(found)

    def over_all_bins(confidence, right, nr_bins):
        return sum(gap.abs() for count, gap in gaps(confidence, right, nr_bins) if count) / nr_bins

    def middles(confidence, right, nr_bins):
        middle = ((confidence * nr_bins).long().clamp(max=nr_bins - 1) + 0.5) / nr_bins
        return weighted(middle, right, nr_bins)

    wrong = {
        "as they do in one single bin": lambda c, r, n: weighted(c, r, n, absolute=False),
        "each bin counted the same": every_bin_the_same,
        "divided by the number of bins": over_all_bins,
        "the middles of the bins": middles,
        "exactly 1 fell out": lambda c, r, n: weighted(c, r, n, close_top=False),
        "got a bin of their own": own_bin_for_1,
        "the answer is NaN": lambda c, r, n: sum(count * gap.abs() for count, gap in gaps(c, r, n)) / len(r),
        "too much and too little": lambda c, r, n: (c.mean() - r.float().mean()).abs(),
        "on its own": lambda c, r, n: (c - r.float()).abs().mean(),
        "never below 0": lambda c, r, n: -weighted(c, r, n),
        "was expected, not": lambda c, r, n: weighted(c, r, n) + 0.3,
        "a number was expected, not Tensor. It is the mean": lambda c, r, n: c,
        "that is what 5 bins give: nr_bins must count": lambda c, r, n: weighted(c, r, 5),
        " bins give: nr_bins must count": lambda c, r, n: weighted(c, r, 5 if len(c) == 8 else 10),
        "pictures in 1 bins": lambda c, r, n: 0.1825,
        "pictures in 2 bins": lambda c, r, n: {5: 0.1825, 1: float((c.mean() - r.double().mean()).abs())}.get(n, 0.1),
    }
    check_exercise(exercises.expected_calibration_error, lambda c, r, n: None, wrong)
    for kind in (np.float32, np.array, torch.tensor):
        verdict = said(exercises.expected_calibration_error.check, lambda c, r, n, kind=kind: kind(weighted(c, r, n)))
        assert verdict == "Right."


def test_sign_test():
    def one_side(a, b):
        return sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)

    def exactly(a, b):
        return math.comb(a + b, a) / 2 ** (a + b)

    def normal(a, b):
        return math.erfc(abs(a - b) / math.sqrt(2 * (a + b)))

    def first_side(a, b):
        return min(1.0, 2 * sum(math.comb(a + b, k) for k in range(a + 1)) / 2 ** (a + b))

    wrong = {
        "one side only": one_side,
        "only the chance of exactly": exactly,
        "normal approximation": normal,
        "a probability stops at 1": lambda a, b: 2 * one_side(a, b),
        "for 5 against 1": first_side,
        "a number was expected, not str. It is a probability": lambda a, b: "small",
        "it stopped with ZeroDivisionError": lambda a, b: 1 / (a * 0),
        " was expected, not 0.3750": lambda a, b: {(5, 1): 14 / 64, (0, 3): 1 / 4}.get((a, b), 12 / 32),
        "for 0 against 0 it stopped": lambda a, b: exercises.sign_test.answer(a, b) * (a + b) / (a + b),
    }
    check_exercise(exercises.sign_test, lambda a, b: None, wrong)
    assert exercises.sign_test.answer(0, 0) == 1.0
    assert said(exercises.sign_test.check, lambda a, b: np.float64(exercises.sign_test.answer(a, b))) == "Right."
    assert said(exercises.sign_test.check, lambda a, b: binomtest(a, a + b).pvalue if a + b else 1) == "Right."
