"""Exercises of notebook 05: Bayes' rule without underflow, macro F1, calibration error, an exact sign test."""

import math

import torch
from torch import Tensor

from . import Exercise, blank, wrong_shape


def number(value) -> float | None:
    """A number, or a tensor of one number, as float; None for anything else."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def near(a: float, b: float) -> bool:
    return abs(a - b) < 1e-5


class Posterior(Exercise):
    """p(y | x) from log p(x | y) and p(y)."""

    hints = (
        "Work with logarithms: log p(x | y) + log p(y). Then take away each row's greatest value before you "
        "exponentiate; it cancels in the fraction. `torch.softmax` does both.",
    )

    @staticmethod
    def answer(log_likelihoods: Tensor, prior: Tensor) -> Tensor:
        return torch.softmax(log_likelihoods + torch.log(prior), dim=1)

    def problem(self, attempt) -> str | None:
        # the likelihoods' ratios are 1 : 3 : 1 : 4 and 2 : 1 : 1 : 1, at the height where those of pictures lie
        ratios = torch.tensor([[1.0, 3.0, 1.0, 4.0], [2.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
        prior = torch.tensor([0.4, 0.2, 0.4, 0.0], dtype=torch.float64)
        far_down = ratios.log() + torch.tensor([[-8000.0], [-9000.0]], dtype=torch.float64)
        out = attempt(far_down.clone(), prior.clone())
        problem = blank(out) or wrong_shape(out, (2, 4))
        if problem:
            return problem
        if bool(out.isnan().any()):
            return (
                "some values are NaN: exp(-8000) is 0 in floating point, and 0 / 0 is NaN. "
                "Stay with logarithms and take away each row's greatest value first."
            )
        true = torch.tensor([[0.4, 0.6, 0.4, 0.0], [0.8, 0.2, 0.4, 0.0]], dtype=torch.float64) / 1.4

        def is_like(value: Tensor) -> bool:
            return torch.allclose(out.double(), value, atol=1e-5)

        if is_like(true):
            return None
        if is_like(true.log()):
            return "these are logarithms; return the probabilities."
        if is_like(ratios / ratios.sum(dim=1, keepdim=True)):
            return "the prior has no effect: picture 0 has a posterior above 0 for label 3, whose prior is 0."
        if is_like(torch.softmax(far_down + prior, dim=1)):
            return "the prior was added as it is; to log-likelihoods belongs its logarithm."
        sums = out.sum(dim=1)
        if not torch.allclose(sums.double(), torch.ones(2, dtype=torch.float64), atol=1e-5):
            return (
                f"each picture's row should sum to 1, but row 0 sums to {float(sums[0]):.3f}: "
                f"normalise over the labels (dim=1), after the prior is in."
            )
        i, j = divmod(int((out - true).abs().argmax()), 4)
        return f"picture {i}, label {j}: {float(true[i, j]):.4f} was expected, not {float(out[i, j]):.4f}."


class MacroF1(Exercise):
    """The mean over the classes of 2 TP / (2 TP + FP + FN)."""

    hints = (
        "2 TP + FP + FN is the class's row sum plus its column sum. A class that is neither there nor predicted has "
        "0 there: keep it from dividing by zero, and let it count as 0.",
    )

    @staticmethod
    def answer(confusion: Tensor) -> float:
        there, predicted = confusion.sum(dim=1), confusion.sum(dim=0)
        return float((2 * confusion.diag() / (there + predicted).clamp(min=1)).mean())

    def problem(self, attempt) -> str | None:
        confusion = torch.tensor([[6, 1, 1], [0, 1, 1], [2, 3, 5]])
        out = attempt(confusion.clone())
        problem = blank(out)
        if problem:
            return problem
        value = number(out)
        if value is None:
            return "one number was expected: the mean over the classes."
        # by hand: TP 6, 1, 5; rows 8, 2, 10; columns 8, 5, 7
        true = (12 / 16 + 2 / 7 + 10 / 17) / 3
        recall, precision = (6 / 8 + 1 / 2 + 5 / 10) / 3, (6 / 8 + 1 / 5 + 5 / 7) / 3
        mistakes = {
            "that is the accuracy, which is also what F1 gives when the counts of all classes are pooled; "
            "take each class's F1, then the mean.": 12 / 20,
            "that is the mean recall: the false positives, which stand in a class's column, are missing.": recall,
            "that is the mean precision: the false negatives, which stand in a class's row, are missing.": precision,
            "that is the F1 of the mean precision and the mean recall; take each class's F1 first, then the mean.": (
                2 * recall * precision / (recall + precision)
            ),
            "the F1 values were weighted by how often a class is there; in macro F1 each class counts the same.": (
                (8 * 12 / 16 + 2 * 2 / 7 + 10 * 10 / 17) / 20
            ),
        }
        if not near(value, true):
            found = next((sentence for sentence, wrong in mistakes.items() if near(value, wrong)), None)
            return found or f"for the rows {confusion.tolist()} the answer is {true:.4f}, not {value:.4f}."
        with_absent = number(attempt(torch.tensor([[6, 1, 1, 0], [0, 1, 1, 0], [2, 3, 5, 0], [0, 0, 0, 0]])))
        if with_absent is None or not near(with_absent, true * 3 / 4):
            return (
                f"with a fourth class that is neither there nor predicted, which counts as 0, "
                f"{true * 3 / 4:.4f} was expected, not {with_absent}."
            )
        return None


class ExpectedCalibrationError(Exercise):
    """|mean confidence - accuracy| of each bin, weighted by how many pictures it holds."""

    hints = (
        "`(confidence * nr_bins).long()` is each picture's bin; a confidence of exactly 1 belongs to the last one "
        "(`.clamp(max=nr_bins - 1)`). Skip the empty bins, and weight with count / N.",
    )

    @staticmethod
    def answer(confidence: Tensor, right: Tensor, nr_bins: int) -> float:
        bins = (confidence * nr_bins).long().clamp(max=nr_bins - 1)
        error = 0.0
        for b in bins.unique():
            here = bins == b
            gap = (confidence[here].mean() - right[here].float().mean()).abs()
            error += float(gap * here.sum() / len(confidence))
        return error

    def problem(self, attempt) -> str | None:
        # five bins: 0.42, 0.46 | 0.64 | 0.9, 0.86, 0.94 and exactly 1, twice
        confidence = torch.tensor([0.9, 0.42, 0.46, 0.64, 1.0, 0.86, 0.94, 1.0])
        right = torch.tensor([True, True, True, False, False, True, False, True])
        out = attempt(confidence.clone(), right.clone(), 5)
        problem = blank(out)
        if problem:
            return problem
        value = number(out)
        if value is None:
            return "one number was expected: the mean over the pictures."
        gaps = [(2, 0.44 - 1.0), (1, 0.64 - 0.0), (5, 4.7 / 5 - 3 / 5)]  # (count, confidence - accuracy)
        true = sum(count * abs(gap) for count, gap in gaps) / 8
        if math.isnan(value):
            return "the answer is NaN: two of the five bins are empty, and the mean of nothing is NaN. Skip them."
        middles = (2 * abs(0.5 - 1) + 1 * abs(0.7 - 0) + 5 * abs(0.9 - 0.6)) / 8
        without_ones = (2 * 0.56 + 0.64 + 3 * abs(2.7 / 3 - 2 / 3)) / 8
        mistakes = {
            "too much and too little confidence cancelled, as they do in one single bin; take each bin's absolute gap "
            "before the sum.": abs(sum(count * gap for count, gap in gaps)) / 8,
            "each bin counted the same; a bin counts as many times as it holds pictures.": (
                sum(abs(gap) for _, gap in gaps) / 3
            ),
            "the gaps were divided by the number of bins, not weighted by their pictures.": (
                sum(abs(gap) for _, gap in gaps) / 5
            ),
            "the middles of the bins were used; take the mean confidence of the pictures in the bin.": middles,
            "the pictures with a confidence of exactly 1 fell out; they belong to the last bin.": without_ones,
            "each picture was compared on its own: |confidence - right|; a bin's mean comes before the absolute "
            "value.": float((confidence - right.float()).abs().mean()),
        }
        if not near(value, true) and not near(value, -true):
            found = next((sentence for sentence, wrong in mistakes.items() if near(abs(value), wrong)), None)
            return found or f"with 8 pictures in 5 bins {true:.4f} was expected, not {value:.4f}."
        return None if value > 0 else "the sign is wrong: an error is never below 0."


class SignTest(Exercise):
    """The exact two-sided p-value for two classifiers that disagree on n pictures."""

    hints = (
        "If both were equally good, each of the n = a + b pictures would be a toss of a fair coin. Sum "
        "`math.comb(n, k)` for k = 0 ... min(a, b), divide by 2**n, double it for two sides, and stop at 1.",
    )

    @staticmethod
    def answer(only_first: int, only_second: int) -> float:
        n, fewer = only_first + only_second, min(only_first, only_second)
        one_side = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
        return min(1.0, 2 * one_side)

    def problem(self, attempt) -> str | None:
        # by hand: of 5 tosses at most 1 head 6 / 32; of 6 at most 1 head 7 / 64; of 3 none 1 / 8
        for a, b, one_side, exactly in [(1, 4, 6 / 32, 5 / 32), (5, 1, 7 / 64, 6 / 64), (0, 3, 1 / 8, 1 / 8)]:
            out = attempt(a, b)
            problem = blank(out)
            if problem:
                return problem
            value, true = number(out), 2 * one_side
            if value is None:
                return "one number was expected: a probability."
            if near(value, true):
                continue
            if near(value, one_side):
                return f"for {a} against {b} that is one side only; the other could have won as well, so double it."
            if near(value, exactly) or near(value, 2 * exactly):
                return (
                    f"for {a} against {b} only the chance of exactly that outcome is in it; "
                    f"what is more extreme belongs to it too."
                )
            if near(value, math.erfc(abs(a - b) / math.sqrt(2 * (a + b)))):
                return f"that is the normal approximation; for {a} against {b} the exact value is {true:.4f}."
            return f"for {a} against {b} {true:.4f} was expected, not {value:.4f}."
        for a in (0, 2):
            value = number(attempt(a, a))
            if value is None or not near(value, 1.0):
                return f"for {a} against {a} the answer is 1, not {value}: a probability stops at 1."
        return None


posterior = Posterior()
macro_f1 = MacroF1()
expected_calibration_error = ExpectedCalibrationError()
sign_test = SignTest()
