"""The exercises of notebook 05."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Exercise, blank, difference, explained, no_number, some, wrong_shape
from .pieces import Piece
from .solutions import zero_shot_classification as solutions
from .stand_ins import Grey, StandIn, random_pictures


def near(a: float, b: float) -> bool:
    return abs(a - b) < 1e-5


def named_mistake(value, expected: Tensor, mistakes: dict[str, Tensor], tolerance: float = 1e-9) -> str | None:
    """As `explained`; float32, which torch.zeros makes, say, will do."""
    single = isinstance(value, Tensor) and value.dtype == torch.float32
    return explained(value, expected, mistakes, max(tolerance, 1e-6) if single else tolerance)


class ClassLogLikelihoods(Piece):
    """log p(x | y) of every picture under every label."""

    kit = "utils.classify.class_log_likelihoods"
    hints = (
        "One call of the model takes pictures and as many labels. What do you have to give it as labels to learn how "
        "likely each of these pictures is as a burger?",
        "For label c the model wants a tensor full of c, one for each picture: torch.full((len(part),), c, "
        "device=x.device). log_prob(model(part, labels), part) is one column. x.split(batch_size) gives the parts.",
        "Under @torch.no_grad(): for each part of x.split(batch_size) collect model.config.num_classes columns, each "
        "(b,), and torch.stack them along dim 1; at the end torch.cat the parts' rows.",
    )
    answer = staticmethod(solutions.class_log_likelihoods)

    def shapes(self, attempt) -> str | None:
        for nr_pictures, nr_classes, height, width in [(5, 3, 4, 4), (1, 2, 3, 5), (2, 5, 1, 1)]:
            x = random_pictures(nr_pictures, height, width)
            before = x.clone()
            value = attempt(StandIn(nr_classes), x)
            if not torch.equal(x, before):
                return "the pictures in x were changed; leave the argument as it is."
            if sentence := blank(value) or wrong_shape(value, (nr_pictures, nr_classes)):
                return f"{nr_pictures} pictures, {nr_classes} classes: {sentence}"
        return None

    def by_hand(self, attempt) -> str | None:
        for probabilities in ([0.5, 0.25, 0.125], (0.05 + 0.9 * torch.rand(some(2, 6))).tolist()):
            size, count = some(2, 5), some(2, 3)
            x = torch.full((count, 3, size, size), Grey.LEVEL, dtype=torch.float64)
            logs = torch.tensor(probabilities, dtype=torch.float64).log().expand(count, -1)
            nats, values = 3 * size**2 * logs, 3 * size**2
            flawed = {
                "that is the negative log-likelihood; the sign is wrong": -nats,
                "these are bits; stay with nats": nats / math.log(2),
                "that is the mean over the colour values; a picture's log-probability is the sum": nats / values,
                "that is the mean over the pixels; a picture's log-probability is the sum": nats / size**2,
                "these are likelihoods; stay with logarithms": nats.exp(),
                "each row is normalised: that is the posterior, which comes later": nats.log_softmax(dim=1),
                "column c belongs to label c, but yours run backwards": nats.flip(1),
            }
            one_label = "every column is that of label {}: the label must change from column to column"
            for c in range(len(probabilities)):
                flawed[one_label.format(c)] = nats[:, [c]].expand_as(nats)
            if problem := named_mistake(attempt(Grey(probabilities), x), nats, flawed, 1e-6):
                given = ", ".join(f"{p:.3g}" for p in probabilities)
                return (
                    f"each of the {values} colour values of a {size}x{size} picture has probability {given} under "
                    f"labels 0, 1, ...: {problem}"
                )
        return None

    def batches(self, attempt) -> str | None:
        for count, batch_size, nr_classes in [(7, 3, 2), (4, 4, 3), (5, 1, 3), (some(9, 12), 5, some(2, 4))]:
            model, x = StandIn(nr_classes), random_pictures(count, 2, 3)
            value = attempt(model, x, batch_size=batch_size)
            said = f"{count} pictures, batch_size {batch_size}"
            largest = max(len(part) for part, *_ in model.calls)
            if largest > batch_size:
                return f"{said}: one call of the model got {largest} pictures, so a large x would fill the memory."
            if sentence := blank(value) or wrong_shape(value, (count, nr_classes)):
                return f"{said}: {sentence} Does the last, smaller batch count?"
            seen = sum(len(part) for part, *_ in model.calls)
            if seen != count * nr_classes:
                return f"{said}: each picture goes through the model once for each of the {nr_classes} labels, " + (
                    f"{count * nr_classes} in all, but the model saw {seen}."
                )
        return None

    def no_graph(self, attempt) -> str | None:
        model = StandIn(3)
        if attempt(model, random_pictures(2, 3, 3)).requires_grad:
            return "the result carries the graph of all passes, which fills the memory: use torch.no_grad()."
        return None

    def equal(self, attempt) -> str | None:
        for count, nr_classes, batch_size in [(some(3, 8), some(2, 6), some(1, 5)), (some(3, 8), some(2, 6), 32)]:
            model, x = StandIn(nr_classes), random_pictures(count, some(1, 5), some(1, 5))
            expected = solutions.class_log_likelihoods(model, x)
            flawed = {"rows and pictures do not go together: row b belongs to picture b": expected.roll(1, dims=0)}
            if problem := named_mistake(attempt(model, x, batch_size=batch_size), expected, flawed):
                return f"{count} random pictures, {nr_classes} classes, batch_size {batch_size}: {problem}"
        return None

    steps = {
        "there is a row for each picture and a column for each class": shapes,
        "grey pictures get the nats worked out by hand": by_hand,
        "no call of the model gets more than batch_size pictures, and none is left out": batches,
        "no graph is kept": no_graph,
        "random pictures get the kit's values": equal,
    }


HEIGHT = -8000.0  # nats: where the log-likelihoods of 32x32 pictures lie


class LogPosterior(Piece):
    """log p(y | x) from log p(x | y) and p(y), without underflow."""

    kit = "utils.classify.log_posterior"
    hints = (
        "A product of probabilities is a sum of logarithms, and a division is a difference. Which sum is the "
        "denominator of Bayes' rule?",
        "The numerator's logarithm is log_likelihoods + torch.log(prior), one row a picture. The denominator is the "
        "sum of the numerators; its logarithm is torch.logsumexp, which never leaves the logarithms.",
        "joint = log_likelihoods, plus torch.log(prior) if there is one. Return joint minus torch.logsumexp(joint, "
        "dim=1, keepdim=True). A uniform prior adds the same to every column, so it drops out.",
    )
    answer = staticmethod(solutions.log_posterior)

    def shapes(self, attempt) -> str | None:
        for count, nr_classes in [(3, 4), (1, 2), (5, 7)]:
            nats = HEIGHT + torch.randn(count, nr_classes, dtype=torch.float64)
            uniform = torch.full((nr_classes,), 1 / nr_classes, dtype=torch.float64)
            for said, given in [("no", [nats]), ("a uniform", [nats, uniform])]:
                before = [each.clone() for each in given]
                value = attempt(*given)
                if not all(map(torch.equal, given, before)):
                    return "an argument was changed in place (by += or -=?); leave the arguments as they are."
                if sentence := blank(value) or wrong_shape(value, (count, nr_classes)):
                    return f"{said} prior: {sentence}"
        return None

    def by_hand(self, attempt) -> str | None:
        # the likelihoods' ratios are 1 : 3 : 1 : 4 and 2 : 1 : 1 : 1
        ratios = torch.tensor([[1.0, 3.0, 1.0, 4.0], [2.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
        prior = torch.tensor([0.4, 0.2, 0.4, 0.0], dtype=torch.float64)
        uniform = torch.full((4,), 0.25, dtype=torch.float64)
        for given in (None, prior):
            nats = ratios.log() + torch.tensor([[HEIGHT], [HEIGHT - 1000]])
            value = attempt(nats) if given is None else attempt(nats, given)
            p = uniform if given is None else given
            joint = ratios * p
            true = joint / joint.sum(dim=1, keepdim=True)
            flawed = {
                "these are probabilities; return their logarithms": true,
                "the prior has no effect": (ratios / ratios.sum(dim=1, keepdim=True)).log(),
                "the prior was added as it is; its logarithm belongs to log-likelihoods": (nats + p).log_softmax(dim=1),
                "the prior came after the normalisation; it belongs before": nats.log_softmax(dim=1) + p.log(),
                "the denominator is missing: each row's probabilities sum to 1": nats
                if given is None
                else nats + p.log(),
                "the columns were normalised; each picture's row should be (dim=1)": (nats + p.log()).log_softmax(
                    dim=0
                ),
            }
            said = "no prior" if given is None else "prior 0.4, 0.2, 0.4, 0"
            if isinstance(value, Tensor) and value.isnan().any():
                return (
                    f"{said}: some values are NaN: exp(-8000) is 0 in floating point, and 0 / 0 is NaN. "
                    "Stay with logarithms."
                )
            if problem := named_mistake(value, true.log(), flawed, 1e-6):
                ratio = "likelihoods 1 : 3 : 1 : 4 and 2 : 1 : 1 : 1"
                return f"{ratio}, {said}: {problem}"
        return None

    def far_apart(self, attempt) -> str | None:
        value = attempt(torch.tensor([[-9000.0, -6000.0]], dtype=torch.float64))
        expected = torch.tensor([[-3000.0, 0.0]], dtype=torch.float64)
        if problem := difference(value, expected):
            why = "the logarithm of a softmax: the softmax has become 0 before the logarithm" if (
                isinstance(value, Tensor) and bool(value.isinf().any())
            ) else "subtract the logsumexp"  # fmt: skip
            return f"log-likelihoods of -9000 and -6000 nats: {problem[:-1]}: {why}."
        return None

    def equal(self, attempt) -> str | None:
        for _ in range(3):
            count, nr_classes = some(1, 6), some(2, 9)
            nats = HEIGHT + 500 * torch.randn(count, 1) + 20 * torch.randn(count, nr_classes, dtype=torch.float64)
            prior = 0.05 + torch.rand(nr_classes, dtype=torch.float64)
            prior /= prior.sum()
            for given in (None, prior):
                value = attempt(nats) if given is None else attempt(nats, given)
                if problem := difference(value, solutions.log_posterior(nats, given)):
                    said = "no prior" if given is None else "a random prior"
                    return f"{count} pictures, {nr_classes} classes, {said}: {problem}"
        return None

    steps = {
        "with and without a prior the shape is right": shapes,
        "likelihoods far below the smallest float give the posterior worked out by hand": by_hand,
        "thousands of nats apart, no logarithm underflows": far_apart,
        "random numbers give the kit's values": equal,
    }


class FitTemperature(Piece):
    """The one number that the log-likelihoods are divided by."""

    kit = "utils.classify.fit_temperature"
    hints = (
        "What you minimise is one number for each T: the mean of -log p(y | x) over the pictures, with p from the "
        "log-likelihoods divided by T. Only one unknown: you could even try a thousand values of T.",
        "F.cross_entropy(log_likelihoods / T, labels) is that mean: it normalises each row and takes the minus "
        "logarithm at the label. Candidates should be spread evenly on a logarithmic scale.",
        "grid = torch.logspace(-1, 4, 501) runs from 0.1 to 10,000. Work the cross-entropy out for each T of it, and "
        "return the T, as a float, that has the smallest.",
    )
    answer = staticmethod(solutions.fit_temperature)
    TOLERANCE = 1e-3  # nats a picture

    def number(self, attempt) -> str | None:
        nats, labels = self._drawn(40, 3, 20.0)
        before = nats.clone()
        value = attempt(nats, labels)
        if not torch.equal(nats, before):
            return "the log-likelihoods were changed in place; leave the argument as it is."
        if sentence := no_number(value):
            return sentence
        value = float(value)
        return None if 0 < value < math.inf else f"a temperature is finite and above 0, not {value:g}."

    @staticmethod
    def _drawn(count: int, nr_classes: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-likelihoods and labels that are drawn from the posterior at this temperature."""
        lead = 3 * temperature * torch.randn(count, nr_classes, dtype=torch.float64)
        labels = (lead / temperature).softmax(dim=1).multinomial(1)[:, 0]
        return lead + HEIGHT + 500 * torch.randn(count, 1), labels

    def by_hand(self, attempt) -> str | None:
        """Two classes, always the same lead L, a share r is right: sigmoid(L / T) = r, so T = L / log(r / (1 - r))."""
        for lead, right, wrong in [(8.0, 8, 2), (0.5, 9, 1), (some(20, 200), some(12, 16), some(2, 6))]:
            labels = torch.tensor([0] * right + [1] * wrong)
            nats = HEIGHT + torch.tensor([float(lead), 0.0], dtype=torch.float64).expand(len(labels), 2)
            value, best = float(attempt(nats, labels)), lead / math.log(right / wrong)
            said = f"{len(labels)} pictures, label 0 always leads by {lead:g} nats and is right for {right} of them"
            if problem := self._worse(value, nats, labels, said, f"T = {best:.3f}"):
                typical = {
                    1 / best: "you return 1 / T",
                    math.log(best): "you return log T",
                    best**2: "you return T squared",
                    1.0: "with T = 1 nothing has been divided",
                }
                why = next((text for wrong, text in typical.items() if abs(value - wrong) < 0.05 * abs(wrong)), "")
                return f"{problem[:-1]}: {why}." if why else problem
        return None

    def _worse(self, value: float, nats: Tensor, labels: Tensor, said: str, best: str = "") -> str | None:
        if not 0 < value < math.inf:
            return f"{said}: a temperature is finite and above 0, not {value:g}."
        fitted = solutions.fit_temperature(nats, labels)
        reached, least = (float(F.cross_entropy(nats / t, labels)) for t in (value, fitted))
        if reached - least <= self.TOLERANCE:
            return None
        best = best or f"T = {fitted:.2f}"
        return f"{said}: T = {value:.3f} costs {reached:.4f} nats a picture, but {best} only {least:.4f}."

    def mixed(self, attempt) -> str | None:
        """Some are far too sure, most are not: the mean confidence can be right and the likelihood is not the best."""
        for sure in (60.0, 15.0):
            leads = torch.tensor([2.0] * 60 + [sure] * 12, dtype=torch.float64)
            labels = torch.tensor([0] * 45 + [1] * 15 + [0] * 9 + [1] * 3)
            nats = HEIGHT + torch.stack([leads, torch.zeros_like(leads)], dim=1)
            value = float(attempt(nats, labels))
            said = f"60 pictures with a lead of 2 nats, 12 with one of {sure:g}, three quarters of both right"
            if problem := self._worse(value, nats, labels, said):
                return problem
        return None

    def random(self, attempt) -> str | None:
        for temperature in (0.4, 3.0, 20.0, 150.0):
            count, nr_classes = some(60, 120), some(2, 6)
            nats, labels = self._drawn(count, nr_classes, temperature)
            said = f"{count} random pictures, {nr_classes} classes"
            if problem := self._worse(float(attempt(nats, labels)), nats, labels, said):
                return problem
        return None

    def all_right(self, attempt) -> str | None:
        nats = HEIGHT + 10 * torch.eye(4, dtype=torch.float64)
        value = float(attempt(nats, torch.arange(4)))
        return self._worse(value, nats, torch.arange(4), "every label is right, with a lead of 10 nats", "T = 0.1")

    steps = {
        "it returns a number above 0": number,
        "with one lead for all pictures it is the T worked out by hand": by_hand,
        "a few pictures that are far too sure count as they should": mixed,
        "on random pictures of any number of classes no T is better": random,
        "where every label is right it is small, but finite": all_right,
    }


class EvidenceMap(Piece):
    """Where a picture speaks for one class and against another."""

    kit = "utils.classify.evidence_map"
    hints = (
        "A log-likelihood is a sum over pixels, and so is the difference of two. What do you get if you leave the sum "
        "out?",
        "The picture goes through the model twice, once with each label, in one batch of two. "
        "log_prob(..., reduce=False) keeps the pixels: (2, H, W).",
        "Under @torch.no_grad(): pictures = x.expand(2, -1, -1, -1); params = model(pictures, torch.tensor([label, "
        "against], device=x.device)); then row 0 minus row 1 of log_prob(params, pictures, reduce=False).",
    )
    answer = staticmethod(solutions.evidence_map)

    def shapes(self, attempt) -> str | None:
        for height, width in [(4, 4), (3, 5), (1, 2)]:
            value = attempt(StandIn(3), random_pictures(1, height, width)[0], 1, 2)
            if sentence := blank(value) or wrong_shape(value, (height, width)):
                return f"a picture (3, {height}, {width}): {sentence}"
            if value.requires_grad:
                return "the map carries the graph of both passes: use torch.no_grad()."
        return None

    def by_hand(self, attempt) -> str | None:
        for probabilities in ([0.5, 0.2, 0.125], (0.05 + 0.9 * torch.rand(4)).tolist()):
            for label, against in [(0, 1), (2, 0), (1, 2)]:
                x = torch.full((3, 2, 3), Grey.LEVEL, dtype=torch.float64)
                p, q = probabilities[label], probabilities[against]
                nats = torch.full((2, 3), 3 * math.log(p / q), dtype=torch.float64)
                flawed = {
                    "the sign is wrong: evidence for `label` is positive": -nats,
                    "these are bits; stay with nats": nats / math.log(2),
                    "that is the mean over the three colours; a pixel's log-probability is their sum": nats / 3,
                    "that is a ratio of probabilities; stay with logarithms": (p / q) ** 3 * torch.ones_like(nats),
                    "that is `label` alone; subtract what `against` gives": 3 * math.log(p) * torch.ones_like(nats),
                }
                if problem := named_mistake(attempt(Grey(probabilities), x, label, against), nats, flawed, 1e-6):
                    return (
                        f"each colour value has probability {p:.3g} under label {label} and {q:.3g} under label "
                        f"{against}: {problem}"
                    )
        return None

    def sums(self, attempt) -> str | None:
        for _ in range(2):
            model, x = StandIn(4), random_pictures(1, 5, 4)
            label, against = torch.randperm(4)[:2].tolist()
            nats = solutions.class_log_likelihoods(model, x)[0]
            expected, total = float(nats[label] - nats[against]), float(attempt(model, x[0], label, against).sum())
            if abs(total - expected) > 1e-6:
                return (
                    f"labels {label} and {against}: the map sums to {total:.4f}, but the difference of the two "
                    f"log-likelihoods is {expected:.4f} nats."
                )
        return None

    def equal(self, attempt) -> str | None:
        for _ in range(3):
            model, x = StandIn(some(2, 5)), random_pictures(1, some(2, 6), some(2, 6))[0]
            label, against = torch.randperm(model.config.num_classes)[:2].tolist()
            expected = solutions.evidence_map(model, x, label, against)
            flawed = {"rows and columns are exchanged": expected.T, "the map is upside down": expected.flip(0)}
            if problem := named_mistake(attempt(model, x, label, against), expected, flawed):
                return f"a random picture {tuple(x.shape)}, labels {label} and {against}: {problem}"
        return None

    steps = {
        "it is one number for each pixel": shapes,
        "a grey picture gets the nats worked out by hand, with the right sign": by_hand,
        "it sums to the difference of the two log-likelihoods": sums,
        "random pictures get the kit's maps": equal,
    }


class MacroF1(Exercise):
    """The mean over the classes of 2 TP / (2 TP + FP + FN)."""

    name = "macro_f1"
    hints = (
        "2 TP + FP + FN is the class's row sum plus its column sum. A class that is neither there nor predicted has "
        "0 there: keep it from dividing by zero, and let it count as 0.",
    )

    @staticmethod
    def answer(confusion):
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
    def answer(confidence, right, nr_bins):
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
        out = attempt(torch.tensor([0.3, 0.5, 0.9]), torch.tensor([True, False, False]), 2)
        if no_number(out) is None and near(float(out), 1.1 / 3):  # 0.3 and 0.5 in one bin
            return "in 2 bins a confidence of exactly 0.5 belongs to the second, which begins there."
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
    def answer(only_first, only_second):
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


class_log_likelihoods, log_posterior, fit_temperature = ClassLogLikelihoods(), LogPosterior(), FitTemperature()
evidence_map = EvidenceMap()
macro_f1, expected_calibration_error, sign_test = MacroF1(), ExpectedCalibrationError(), SignTest()
