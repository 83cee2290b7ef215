"""Exercises of notebook 05: Bayes' rule without underflow, macro F1, calibration error, an exact sign test."""

import math

import torch
from torch import Tensor

from . import Exercise, blank, no_number, some, wrong_shape


def near(a: float, b: float) -> bool:
    return abs(a - b) < 1e-5


class Posterior(Exercise):
    """p(y | x) from log p(x | y) and p(y)."""

    name = "posterior"
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
        if sentence := self._wrong_value(attempt, ratios, prior, height=torch.tensor([[-8000.0], [-9000.0]])):
            return sentence
        for nr_pictures, nr_classes in ((1, some(2, 4)), (some(3, 6), some(5, 9))):
            ratios = 0.1 + torch.rand(nr_pictures, nr_classes, dtype=torch.float64)
            prior = 0.1 + torch.rand(nr_classes, dtype=torch.float64)
            height = -8000 + 500 * torch.randn(nr_pictures, 1)
            if sentence := self._wrong_value(attempt, ratios, prior / prior.sum(), height):
                return f"{nr_pictures} pictures, {nr_classes} labels: {sentence}"
        out = attempt(torch.tensor([[-9000.0, -6000.0]]), torch.tensor([0.5, 0.5]))
        if sentence := blank(out) or wrong_shape(out, (1, 2)):
            return sentence
        if not (near(float(out[0, 0]), 0) and near(float(out[0, 1]), 1)):
            return (
                f"with log-likelihoods of -9000 and -6000 nats the posterior is [0, 1], not {out[0].tolist()}: "
                "take away each row's greatest value, then no exponential overflows."
            )
        return None

    @staticmethod
    def _wrong_value(attempt, ratios: Tensor, prior: Tensor, height: Tensor) -> str | None:
        far_down = ratios.log() + height
        out = attempt(far_down.clone(), prior.clone())
        if sentence := blank(out) or wrong_shape(out, tuple(ratios.shape)):
            return sentence
        if bool(out.isnan().any()):
            return (
                "some values are NaN: exp(-8000) is 0 in floating point, and 0 / 0 is NaN. "
                "Stay with logarithms and take away each row's greatest value first."
            )
        true = ratios * prior / (ratios * prior).sum(dim=1, keepdim=True)

        def is_like(value: Tensor) -> bool:  # in float32 a number near 8000 is known to 0.0005
            return torch.allclose(out.double(), value, atol=1e-3, rtol=1e-3)

        if is_like(true):
            return None
        if is_like(true.log()):
            return "these are logarithms; return the probabilities."
        if is_like(ratios / ratios.sum(dim=1, keepdim=True)):
            return "the prior has no effect; a label whose prior is 0 has a posterior of 0, whatever its likelihood."
        if is_like(torch.softmax(far_down + prior, dim=1)):
            return "the prior was added as it is; to log-likelihoods belongs its logarithm."
        sums = out.double().sum(dim=1)
        row = int((sums - 1).abs().argmax())
        if not abs(float(sums[row]) - 1) < 1e-3:
            return (
                f"each picture's row should sum to 1, but row {row} sums to {float(sums[row]):.3f}: "
                f"normalise over the labels (dim=1), after the prior is in."
            )
        i, j = divmod(int((out - true).abs().argmax()), ratios.shape[1])
        return f"picture {i}, label {j}: {float(true[i, j]):.4f} was expected, not {float(out[i, j]):.4f}."


class MacroF1(Exercise):
    """The mean over the classes of 2 TP / (2 TP + FP + FN)."""

    name = "macro_f1"
    hints = (
        "2 TP + FP + FN is the class's row sum plus its column sum. A class that is neither there nor predicted has "
        "0 there: keep it from dividing by zero, and let it count as 0.",
    )

    @staticmethod
    def answer(confusion: Tensor) -> float:
        there, predicted = confusion.sum(dim=1), confusion.sum(dim=0)
        return float((2 * confusion.diag() / (there + predicted).clamp(min=1)).mean())

    def problem(self, attempt) -> str | None:
        # by hand: TP 6, 1, 5; rows 8, 2, 10; columns 8, 5, 7
        confusion = [[6, 1, 1], [0, 1, 1], [2, 3, 5]]
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
            "that is the sum over the classes; take the mean.": 3 * true,
            "that is per cent; return the share, 0 ... 1.": 100 * true,
        }
        if sentence := self._wrong_value(attempt, confusion, true, mistakes):
            return sentence
        absent = [[6, 1, 1, 0], [0, 1, 1, 0], [2, 3, 5, 0], [0, 0, 0, 0]]
        if sentence := self._wrong_value(attempt, absent, true * 3 / 4):
            return f"a fourth class that is neither there nor predicted counts as 0; {sentence}"
        for nr_classes in (2, some(4, 8)):
            counts = (torch.randint(0, 20, (nr_classes, nr_classes)) + 10 * torch.eye(nr_classes).long()).tolist()
            columns = [sum(column) for column in zip(*counts, strict=True)]
            f1 = [2 * row[c] / (sum(row) + columns[c]) for c, row in enumerate(counts)]
            if sentence := self._wrong_value(attempt, counts, sum(f1) / nr_classes):
                return sentence
        return None

    @staticmethod
    def _wrong_value(attempt, rows: list[list[int]], true: float, mistakes: dict | None = None) -> str | None:
        out = attempt(torch.tensor(rows))
        if sentence := no_number(out):
            return f"{sentence} It is the mean over the classes."
        value = float(out)
        if near(value, true):
            return None
        found = next((sentence for sentence, wrong in (mistakes or {}).items() if near(value, wrong)), None)
        return found or f"for the rows {rows} the answer is {true:.4f}, not {value:.4f}."


def calibration_error(confidence: list[float], right: list[bool], nr_bins: int) -> float:
    """The answer worked out picture by picture, in plain Python."""
    bins: dict[int, list[float]] = {}
    for c, r in zip(confidence, right, strict=True):
        bins.setdefault(min(int(c * nr_bins), nr_bins - 1), []).append(c - r)
    return sum(abs(sum(gaps)) for gaps in bins.values()) / len(confidence)


class ExpectedCalibrationError(Exercise):
    """|mean confidence - accuracy| of each bin, weighted by how many pictures it holds."""

    name = "expected_calibration_error"
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
        right = torch.tensor([True, True, False, False, False, True, True, True])
        out = attempt(confidence.clone(), right.clone(), 5)
        if sentence := no_number(out):
            return f"{sentence} It is the mean over the pictures."
        value = float(out)
        gaps = [(2, 0.44 - 0.5), (1, 0.64 - 0.0), (5, 4.7 / 5 - 4 / 5)]  # (count, confidence - accuracy)
        true = sum(count * abs(gap) for count, gap in gaps) / 8
        if math.isnan(value):
            return "the answer is NaN: two of the five bins are empty, and the mean of nothing is NaN. Skip them."
        middles = (2 * abs(0.5 - 0.5) + 1 * abs(0.7 - 0) + 5 * abs(0.9 - 0.8)) / 8
        without_ones = (2 * 0.06 + 0.64 + 3 * abs(2.7 / 3 - 1)) / 8
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
            "the pictures with a confidence of exactly 1 got a bin of their own; they belong to the last bin.": (
                without_ones + 2 * 0.5 / 8
            ),
            "each picture was compared on its own: |confidence - right|; a bin's mean comes before the absolute "
            "value.": float((confidence - right.float()).abs().mean()),
        }
        if not near(value, true) and not near(value, -true):
            found = next((sentence for sentence, wrong in mistakes.items() if near(abs(value), wrong)), None)
            return found or f"with 8 pictures in 5 bins {true:.4f} was expected, not {value:.4f}."
        if value < 0:
            return "the sign is wrong: an error is never below 0."
        return next(filter(None, (self._wrong_bins(attempt, nr_bins) for nr_bins in (1, 2, 10, some(11, 20)))), None)

    @staticmethod
    def _wrong_bins(attempt, nr_bins: int) -> str | None:
        """Other pictures, in another number of bins; the odds of being right change from picture to picture."""
        confidence = torch.rand(some(40, 60), dtype=torch.float64)
        right = torch.rand_like(confidence) < torch.rand_like(confidence)
        out = attempt(confidence.clone(), right.clone(), nr_bins)
        if sentence := no_number(out):
            return sentence
        value, pictures = float(out), (confidence.tolist(), right.tolist())
        true = calibration_error(*pictures, nr_bins)
        if near(value, true):
            return None
        said = f"with {len(right)} pictures in {nr_bins} bins {true:.4f} was expected, not {value:.4f}"
        other = next((n for n in (5, 10, 15, *range(1, 31)) if near(value, calibration_error(*pictures, n))), None)
        return f"{said}; that is what {other} bins give: nr_bins must count." if other else f"{said}."


class SignTest(Exercise):
    """The exact two-sided p-value for two classifiers that disagree on n pictures."""

    name = "sign_test"
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
        by_hand = [(1, 4, 6 / 32, 5 / 32), (5, 1, 7 / 64, 6 / 64), (0, 3, 1 / 8, 1 / 8)]
        for a, b in ((some(2, 6), some(8, 14)), (some(9, 15), some(3, 7))):
            n, fewer = a + b, min(a, b)
            tosses = [math.factorial(n) / math.factorial(k) / math.factorial(n - k) / 2**n for k in range(fewer + 1)]
            by_hand.append((a, b, math.fsum(tosses), tosses[-1]))
        for a, b, one_side, exactly in by_hand:
            out = attempt(a, b)
            if sentence := no_number(out):
                return f"{sentence} It is a probability."
            value, true = float(out), min(1.0, 2 * one_side)
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
        for a in (2, some(3, 9), 0):
            try:
                out = attempt(a, a)
            except (ZeroDivisionError, ValueError) as error:
                return f"for {a} against {a} it stopped ({error}), but the answer is 1: nothing speaks for either."
            if sentence := no_number(out):
                return sentence
            if not near(float(out), 1.0):
                return f"for {a} against {a} the answer is 1, not {float(out):.4f}: a probability stops at 1."
        return None


posterior = Posterior()
macro_f1 = MacroF1()
expected_calibration_error = ExpectedCalibrationError()
sign_test = SignTest()
