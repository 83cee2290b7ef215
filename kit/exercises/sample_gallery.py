"""The exercises of notebook 06: a sheet of pictures, completion, nearest neighbours, Fréchet's distance, its bias."""

import math

import numpy as np
import torch
from torch import Tensor

from utils.data import to_bytes, to_float
from utils.mixture import log_prob
from utils.model import ConditionalPixelCNN, ModelConfig

from . import Exercise, blank, explained, no_number, reason, some, wrong_shape
from .pieces import Piece
from .solutions import sample_gallery as solutions
from .stand_ins import Grey, Watch, random_pictures


class Sheet(Exercise):
    """Lay pictures out as one sheet of bytes, row by row."""

    name = "sheet"
    hints = (
        "`to_bytes` of utils.data gives uint8. See the pictures as (rows, columns, 3, S, S): the sheet's height is "
        "rows then S, its width columns then S, the colour comes last. One permute, then one reshape.",
    )

    @staticmethod
    def answer(images: Tensor, columns: int) -> Tensor:
        _, colours, size, _ = images.shape
        tiles = to_bytes(images).view(-1, columns, colours, size, size)  # (R, C, 3, S, S)
        return tiles.permute(0, 3, 1, 4, 2).reshape(-1, columns * size, colours)  # (R*S, C*S, 3)

    def problem(self, attempt) -> str | None:
        if sentence := self._wrong_sheet(attempt, rows=2, columns=3, size=4):
            return sentence
        others = [(some(3, 5), 2, some(5, 8)), (some(1, 3), some(4, 6), some(2, 6)), (some(3, 5), 1, some(3, 5))]
        for rows, columns, size in others:
            try:
                sentence = self._wrong_sheet(attempt, rows, columns, size)
            except RuntimeError as error:  # as of a view of fixed sizes
                sentence = f"it stopped: {error}"
            if sentence:
                return f"{rows * columns} pictures of {size}x{size} in columns={columns}: {sentence}"
        return None

    @staticmethod
    def _wrong_sheet(attempt, rows: int, columns: int, size: int) -> str | None:
        levels = torch.randint(0, 256, (rows * columns, 3, size, size), dtype=torch.uint8)
        images = to_float(levels)
        sheet = attempt(images, columns)
        if not torch.equal(images, to_float(levels)):
            return "it writes into images; they are the caller's."
        complaint = blank(sheet) or wrong_shape(sheet, (rows * size, columns * size, 3))
        if complaint:
            return complaint
        if sheet.dtype != torch.uint8:
            return f"the sheet holds {sheet.dtype}, but bytes (torch.uint8) were asked for."
        truth = torch.zeros(rows * size, columns * size, 3, dtype=torch.uint8)
        for n, picture in enumerate(levels):
            top, left = n // columns * size, n % columns * size
            truth[top : top + size, left : left + size] = picture.permute(1, 2, 0)
        difference = (sheet.int() - truth.int()).abs()
        if difference.max() == 0:
            return None
        if difference.max() == 1:
            return "some bytes are one too low: round before you cast, a cast to uint8 cuts the fraction off."
        if torch.equal(sheet, truth.flip(2)):
            return "the colours are in the order blue, green, red."
        if torch.equal(sheet, levels.reshape(sheet.shape)):
            return (
                "a reshape alone leaves the numbers in the order of memory, colour by colour: permute the axes first."
            )
        y, x, colour = difference.nonzero()[0].tolist()
        return (
            f"entry ({y}, {x}, {colour}) is {sheet[y, x, colour]}, but there picture {y // size * columns + x // size} "
            f"has {truth[y, x, colour]}: which axes become the sheet's height, and which its width?"
        )


class LogProbOfRest(Piece):
    """The log-likelihood of the rows that were not given."""

    hints = (
        "One pass of the network predicts every pixel from those before it, the given ones too. So which pixels' "
        "log-probabilities do you keep?",
        "`log_prob(params, x, reduce=False)` has one number for each pixel, (B, H, W). Hand the network the whole "
        "picture, keep the rows from `nr_given` on, and sum; torch.no_grad() keeps no gradient.",
        "Under the decorator @torch.no_grad(): log_pixels = log_prob(model(x, y), x, reduce=False), then "
        "log_pixels[:, nr_given:], summed over dim=(1, 2).",
    )
    answer = staticmethod(solutions.log_prob_of_rest)

    def shapes(self, attempt) -> str | None:
        model = Grey([0.5])
        for nr_pictures, height, width, nr_given in [(3, 4, 6, 1), (1, 5, 2, 0), (2, 3, 3, 2)]:
            x, y = random_pictures(nr_pictures, height, width), torch.zeros(nr_pictures, dtype=torch.long)
            before = x.clone(), y.clone()
            nats = attempt(model, x, y, nr_given)
            if not (torch.equal(x, before[0]) and torch.equal(y, before[1])):
                return "it writes into x or y; they are the caller's."
            if sentence := blank(nats) or wrong_shape(nats, (nr_pictures,)):
                return f"pictures: {nr_pictures} of {height}x{width}, rows given: {nr_given}: {sentence}"
            if nats.requires_grad:
                return "the numbers still carry a gradient, and with it the whole network's memory: torch.no_grad()."
        return None

    def by_hand(self, attempt) -> str | None:
        for nr_given, probability in [(0, 0.5), (2, 0.5), (1, 0.25)]:
            x = torch.full((2, 3, 4, 5), Grey.LEVEL, dtype=torch.float64)
            nats = attempt(Grey([probability] * 2), x, torch.tensor([0, 1]), nr_given)
            nr_values = (4 - nr_given) * 5 * 3
            expected = nr_values * math.log(probability)
            found = float(nats[0])
            if abs(found - expected) < 1e-3:
                continue
            rest = f"{4 - nr_given} rows of 5 pixels with 3 colours, each colour with probability {probability}"
            known = {
                expected / math.log(2): "these are bits; nats are asked for",
                -expected: "the sign is turned: a log-likelihood is below 0 here, its negative is a loss",
                60 * math.log(probability): "all rows are in it, the given ones too",
                nr_given * 15 * math.log(probability): "these are the rows that were given; the others are asked for",
                (60 - 3 * nr_given) * math.log(probability): "nr_given counts rows, not pixels",
                expected / nr_values: "values are averaged; a log-likelihood is their sum",
                expected / nr_values * 3: "pixels are averaged; a log-likelihood is their sum",
                expected - 15 * math.log(probability): "the first row that was not given is missing",
                expected + 15 * math.log(probability): "the last row that was given is in it",
                (60 - 12 * nr_given) * math.log(probability): "these are columns; rows are given, the dimension before",
            }
            return f"{rest}, have {expected:.4f} nats together, not {found:.4f}{reason(known, found, 1e-5)}."
        return None

    def given(self, attempt) -> str | None:
        return self._compared(attempt, small_model(), [(2, 16, 8, 12), (2, 8, 16, 4)], labels=[1, 1])

    def label(self, attempt) -> str | None:
        return self._compared(attempt, small_model(), [(3, 8, 8, 4)], labels=[3, 1, 2])

    def equal(self, attempt) -> str | None:
        sizes = [(some(1, 4), 4 * some(2, 4), 4 * some(1, 3), some(0, 7)) for _ in range(4)]
        return self._compared(attempt, small_model(), sizes, torch.randint(4, (4,)).tolist())

    @staticmethod
    def _compared(attempt, model, sizes: list[tuple[int, int, int, int]], labels: list[int]) -> str | None:
        @torch.no_grad()
        def by_rows(x: Tensor, y: Tensor) -> Tensor:
            params = model(x, y)
            rows = [(params[:, :, i : i + 1], x[:, :, i : i + 1]) for i in range(x.shape[2])]
            return torch.stack([log_prob(*row) for row in rows], dim=1)  # (B, H)

        for nr_pictures, height, width, nr_given in sizes:
            x, y = random_pictures(nr_pictures, height, width), torch.tensor(labels[:nr_pictures])
            expected = by_rows(x, y)[:, nr_given:].sum(dim=1)
            value = attempt(model, x.clone(), y.clone(), nr_given)
            covered = x.clone()
            covered[:, :, nr_given:] = 1
            with torch.no_grad():
                without_rest = log_prob(model(covered, y), x, reduce=False)[:, nr_given:].sum(dim=(1, 2))
            known = {
                "all rows are in it, the given ones too": by_rows(x, y).sum(dim=1),
                "the label is not used: this is the value for class 0": by_rows(x, 0 * y)[:, nr_given:].sum(dim=1),
                "every picture has a label of its own": by_rows(x, y[:1].expand_as(y))[:, nr_given:].sum(dim=1),
                "the last row alone is in it": by_rows(x, y)[:, -1],
                "the network must see the rest too: a pixel there depends on those before it": without_rest,
            }
            if nr_given % 4 == 0:
                alone = by_rows(x[:, :, nr_given:], y).sum(dim=1)
                known["the network saw these rows alone; each depends on the given ones above too"] = alone
            if problem := explained(value, expected, known):
                return f"{nr_pictures} pictures, {height} rows high, {nr_given} of them given: {problem}"
        return None

    steps = {
        "one number for each picture, without a gradient": shapes,
        "if all values are equally likely, it is the value worked out by hand": by_hand,
        "the given rows are not counted, but the network sees them": given,
        "each picture is judged under its own label": label,
        "random pictures of any size give the solution's values": equal,
    }


def small_model() -> ConditionalPixelCNN:
    """float64; untrained it would hardly look at the label and at the rows above."""
    config = ModelConfig(4, nr_resnet=1, nr_filters=4, nr_logistic_mix=2, fusion=("late",))
    model = ConditionalPixelCNN(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


class Nearest(Piece):
    """The training pictures that are closest to each sample."""

    hints = (
        "Seen as one row of numbers, a picture is a point, and L2 is the distance of points. Which function of PyTorch "
        "has all distances between two sets of points?",
        "Flatten the pictures to (N, 3*S*S) and take torch.cdist, (N, M): all differences at once would be N*M*3*S*S "
        "numbers, more than your memory. Then topk; unless it is told otherwise, it takes the largest.",
        "distances = torch.cdist(samples.flatten(1), training.flatten(1)), then distances.topk(count, largest=False); "
        "of the two tensors that it returns, `.indices` is the answer.",
    )
    answer = staticmethod(solutions.nearest)

    def shapes(self, attempt) -> str | None:
        for nr_samples, nr_training, size, count in [(3, 9, 4, 2), (1, 5, 3, 1), (4, 4, 2, 4)]:
            samples, training = torch.rand(nr_samples, 3, size, size), torch.rand(nr_training, 3, size, size)
            before = samples.clone(), training.clone()
            found = attempt(samples, training, count)
            if not (torch.equal(samples, before[0]) and torch.equal(training, before[1])):
                return "it writes into its arguments; they are the caller's."
            said = f"samples: {nr_samples}, training pictures: {nr_training}, count: {count}"
            if isinstance(found, tuple):
                return f"{said}: topk and sort return two tensors; the second, `.indices`, is the answer."
            if sentence := blank(found) or wrong_shape(found, (nr_samples, count)):
                return f"{said}: {sentence}"
            if found.is_floating_point() or found.dtype == torch.bool:
                return "these are not whole numbers; the indices of the pictures are asked for, not their distances."
            if outside := [n for n in found.flatten().tolist() if not 0 <= n < nr_training]:
                return f"{said}: there is no training picture {outside[0]}; they are numbered from 0."
        return None

    def by_hand(self, attempt) -> str | None:
        """From a picture of zeros: itself, all a little off (L2 1.04, L1 7.2), two numbers far off (1.13, 1.6), all a
        little further off (1.73, 12), four more."""
        training, order = torch.zeros(8, 3, 4, 4), torch.randperm(8)
        training[1], training[3] = 0.15, 0.25
        training[2, 1, 2, 1:3] = 0.8
        training[4:] = 1.0 - 0.1 * torch.arange(4.0).view(4, 1, 1, 1)
        places = [int((order == n).nonzero()) for n in range(8)]
        found = attempt(torch.zeros(1, 3, 4, 4), training[order], 4)[0].tolist()
        if found == places[:4]:
            return None
        l1, far = [places[n] for n in (0, 2, 1, 3)], [places[n] for n in (4, 5, 6, 7)]
        known = {
            "that is the order of the L1 distance (absolute differences); L2 squares them": l1,
            "these are the farthest; topk takes the largest unless you say largest=False": far,
            "the right pictures, but the nearest comes first": places[3::-1],
        }
        why = next((f": {text}" for text, wrong in known.items() if found == wrong), "")
        shown = (
            f"the training pictures {places[:4]}, at distances 0, 1.04, 1.13 and 1.73, are the nearest of one sample"
        )
        return f"{shown}, but it gives {found}{why}."

    def memory(self, attempt) -> str | None:
        samples, training = torch.rand(60, 3, 8, 8), torch.rand(80, 3, 8, 8)
        with Largest() as largest:
            attempt(samples, training, 2)
        if largest.numel >= 60 * 80 * 3 * 8 * 8:
            return (
                f"60 samples and 80 training pictures of 8x8 make a tensor of shape {largest.shape}, all differences "
                "at once; for 400 samples and 4000 pictures of 32x32 that would be 20 GB. torch.cdist needs none."
            )
        return None

    def copies(self, attempt) -> str | None:
        training = torch.rand(40, 3, 4, 4) * 2 - 1
        where = torch.randperm(40)[:5]
        found = attempt(training[where], training, 1)[:, 0]
        if torch.equal(found.long(), where):
            return None
        n = int((found != where).nonzero()[0])
        return f"training picture {int(where[n])} is its own nearest, but it gives picture {int(found[n])}."

    def equal(self, attempt) -> str | None:
        for count in (3, 1, some(4, 8)):
            size, nr_samples, nr_training = some(2, 6), some(1, 5), some(10, 30)
            samples, training = torch.randn(nr_samples, 3, size, size), torch.randn(nr_training, 3, size, size)
            if sentence := self._wrong(attempt, samples.tanh(), training.tanh(), count):
                return f"samples: {nr_samples}, training pictures: {nr_training}, count: {count}: {sentence}"
        return None

    @staticmethod
    def _wrong(attempt, samples: Tensor, training: Tensor, count: int) -> str | None:
        found = attempt(samples.clone(), training.clone(), count)
        if sentence := blank(found) or wrong_shape(found, (len(samples), count)):
            return sentence
        found = found.long()
        if outside := [n for n in found.flatten().tolist() if not 0 <= n < len(training)]:
            return f"there is no training picture {outside[0]}."
        l2 = (samples.double()[:, None] - training.double()[None]).square().sum((2, 3, 4)).sqrt()  # (N, M)
        nearest = l2.sort(dim=1)
        if any(len(set(row)) < count for row in found.tolist()):
            return "the same training picture comes twice."
        near = torch.isclose(l2.gather(1, found), nearest.values[:, :count], 1e-5, 1e-6)  # two may be equally near
        if near.all():
            return None
        product = samples.double().flatten(1) @ training.double().flatten(1).T
        if torch.equal(product.argsort(dim=1, descending=True)[:, :count], found):
            return "the largest product is not the smallest distance: a picture with large values wins it too often."
        n, k = (~near).nonzero()[0].tolist()
        return f"for sample {n}, neighbour {k} is picture {int(nearest.indices[n, k])}, not {int(found[n, k])}."

    steps = {
        "indices come out, as many for each sample as were asked for": shapes,
        "distances worked out by hand are in the right order": by_hand,
        "memory suffices for thousands of pictures": memory,
        "a training picture is its own nearest neighbour": copies,
        "random pictures, of several sizes, have the right neighbours": equal,
    }


class Largest(Watch):
    """Notes the largest tensor that is computed meanwhile."""

    numel, shape = 0, ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, Tensor) and each.numel() > self.numel:
                self.numel, self.shape = each.numel(), tuple(each.shape)
        return result


class Frechet(Piece):
    """The Fréchet distance of two Gaussians."""

    hints = (
        "The means are easy. For the last term you need no square root of C1 C2 itself, only its trace: the sum of "
        "the roots of its eigenvalues, and a symmetric matrix has the same ones.",
        "The root of cov1: `values, vectors = torch.linalg.eigh(cov1)`, then vectors * sqrt(values) @ vectors.T. "
        "root @ cov2 @ root is symmetric; torch.linalg.eigvalsh gives its eigenvalues. Rounding makes some slightly "
        "negative.",
        "values.clamp(min=0).sqrt() for the root of cov1, called `root`; middle = "
        "torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum(). The result is the squared length of "
        "mean1 - mean2, plus both traces, minus twice `middle`; float() makes it a number.",
    )
    answer = staticmethod(solutions.frechet)

    def one_dimension(self, attempt) -> str | None:
        moments = [torch.tensor(numbers).double() for numbers in ([0], [[1]], [3], [[4]])]
        before = [each.clone() for each in moments]
        value = attempt(*moments)
        if not all(map(torch.equal, moments, before)):
            return "it writes into its arguments; they are the caller's."
        if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex()):
            return "that is a complex number; take the real part, or eigenvalues of a symmetric matrix."
        if sentence := no_number(value):
            return sentence
        known = {
            4.0: "the difference of the means must be squared",
            1.0: "the difference of the means counts too",
            10**0.5: "no root at the end: it is the squared distance that everybody reports",
            12.0: "the root of the product is subtracted twice",
            14.0: "the root of the product of the covariances is missing",
            6.0: "the product is subtracted, but its root was asked for",
        }
        if abs(float(value) - 10) < 1e-6:
            return None
        by_hand = f"(0 - 3)**2 + 1 + 4 - 2 * sqrt(1 * 4) = 10, not {float(value):.4g}"
        return f"the Gaussians with means 0 and 3, variances 1 and 4 give {by_hand}{reason(known, float(value), 1e-6)}."

    def two_dimensions(self, attempt) -> str | None:
        """Covariances that do not commute: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2x2 matrix."""
        first, second = torch.tensor([[[2, 0.6], [0.6, 1]], [[1, -0.8], [-0.8, 3]]], dtype=torch.float64)
        zero, mean = torch.tensor([[0, 0], [1, -2]]).double()
        product = first @ second
        middle = (product.trace() + 2 * product.det().sqrt()).sqrt()
        expected = float(5 + first.trace() + second.trace() - 2 * middle)
        value = attempt(zero, first.clone(), mean, second.clone())
        if sentence := no_number(value):
            return sentence
        value = float(value)
        if abs(value - expected) < 1e-6:
            return None
        each, without = first.trace() + second.trace(), float(5 + first.trace() + second.trace())
        roots = [torch.linalg.eigvalsh(cov).sqrt().sum() for cov in (first, second)]
        (values1, axes1), (values2, axes2) = map(torch.linalg.eigh, (first, second))
        apart = ((axes1 * values1.sqrt()) @ axes1.T * ((axes2 * values2.sqrt()) @ axes2.T)).sum()
        known = {
            without - 2 * float(product.diagonal().sqrt().sum()): "the root is taken of each entry, but it is the root "
            "of a matrix: the R with R @ R = cov1 @ cov2",
            without - 2 * float(roots[0] * roots[1]): "the trace of a product is not the product of the traces",
            without - 2 * float(apart): "root(cov1) @ root(cov2) is not the root of cov1 @ cov2 if they do not commute",
            float(1 + each - 2 * middle): "the squares of the differences of the means are added: 1 + 4",
            without - 2 * float((first.diagonal() * second.diagonal()).sqrt().sum()): "the entries beside the diagonal "
            "count too",
        }
        why = reason(known, value, 1e-6)
        return f"for 2x2 covariances that are not diagonal it gives {value:.4f}, but {expected:.4f} is right{why}."

    def singular(self, attempt) -> str | None:
        """4 and 5 pictures in 8 features: singular, as with real sets that are too small."""
        few, others = torch.randn(4, 8, dtype=torch.float64), 1 + torch.randn(5, 8, dtype=torch.float64)
        for x, y in ((few, few), (few, others), (others, few)):
            value = attempt(x.mean(dim=0), torch.cov(x.T), y.mean(dim=0), torch.cov(y.T))
            if sentence := no_number(value):
                return sentence
            centred = [(z - z.mean(dim=0)) / math.sqrt(len(z) - 1) for z in (x, y)]
            expected = float(between(x.mean(dim=0), y.mean(dim=0), *centred))
            if not abs(float(value) - expected) < 1e-4:
                case = f"covariances of {len(x)} and {len(y)} pictures in 8 features are singular; for such"
                cure = ": rounding makes eigenvalues slightly negative; clamp them at 0 before the root"
                said = f"{case} it gives {float(value):.4g}, but {abs(expected):.4f} is right"
                return f"{said}{cure if math.isnan(float(value)) or abs(float(value) - expected) < 0.1 else ''}."
        return None

    def equal(self, attempt) -> str | None:
        for size in (1, some(3, 5), some(6, 9)):
            a, b = torch.randn(2, size + 1, size, dtype=torch.float64)
            mean1, mean2 = torch.randn(2, size, dtype=torch.float64)
            expected = float(between(mean1, mean2, a, b))
            value = attempt(mean1.clone(), a.T @ a, mean2.clone(), b.T @ b)
            if sentence := no_number(value):
                return sentence
            if not abs(float(value) - expected) < 1e-6 * max(1.0, expected):
                return f"for two Gaussians with means of size {size} it gives {float(value):.6f}, not {expected:.6f}."
        return None

    steps = {
        "in one dimension it is the value worked out by hand": one_dimension,
        "covariances that are not diagonal are multiplied as matrices": two_dimensions,
        "singular covariances do no harm": singular,
        "random Gaussians in several dimensions have the right distance": equal,
    }


def between(mean1: Tensor, mean2: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The distance of Gaussians with covariances A'A and B'B: tr sqrt(A'A B'B) is the sum of AB' 's singular values."""
    means = (mean1 - mean2).square().sum()
    return means + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()


def line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The slope of the least-squares line through the points, and where it is at x = 0."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return slope, float(y.mean() - slope * x.mean())


class AtInfinity(Exercise):
    """Where a line over 1/N ends."""

    name = "at_infinity"
    hints = (
        "Which numbers belong on the horizontal axis, so that N = infinity is at 0?",
        "np.polyfit(horizontal, vertical, 1) fits a straight line by least squares and returns its slope and its value "
        "at 0, in this order.",
    )

    @staticmethod
    def answer(counts, distances):
        _slope, at_zero = np.polyfit(1 / np.array(counts), distances, 1)
        return float(at_zero)

    def problem(self, attempt) -> str | None:
        cases: list[tuple[list[int], list[float]]] = [
            ([10, 20, 40], [7.0, 5.0, 4.0]),  # 3 + 40/N
            ([50, 100], [2.0, 2.0]),
            ([100, 25, 50], [0.5, 3.5, 1.5]),  # -0.5 + 100/N, in another order
            ([10, 20, 100], [8.0, 5.0, 4.5]),  # no straight line
        ]
        counts = sorted({some(20, 60), some(61, 200), some(201, 400), some(401, 900)})
        cases.append((counts, (2 + 30 / torch.tensor(counts) + 0.1 * torch.randn(len(counts))).tolist()))
        for counts, distances in cases:
            value = attempt(list(counts), list(distances))
            if sentence := no_number(value):
                return sentence
            inverse = torch.tensor([1 / n for n in counts], dtype=torch.float64)
            found, y = float(value), torch.tensor(distances, dtype=torch.float64)
            slope, expected = line(inverse, y)
            if abs(found - expected) < 1e-6:
                continue
            n = torch.tensor(counts, dtype=torch.float64)
            first, last = int(n.argmin()), int(n.argmax())
            step = (y[first] - y[last]) / (inverse[first] - inverse[last])
            known = {
                slope: "that is the line's slope, not its value at 1/N = 0",
                **dict.fromkeys(line(n, y), "the line runs over N; take 1/N, which is 0 for infinitely many"),
                float(y.min()): "that is the smallest distance, not the line's end",
                float(y[last]): "that is the distance of the largest set, not the line's end",
                float(y.mean()): "that is the mean of the distances",
                float(y[last] - step * inverse[last]): "a line through two of the points alone; fit it to all of them",
            }
            why = reason(known, found, 1e-6)
            shown = [round(each, 4) for each in distances]
            return f"counts {counts}, distances {shown} give {found:.4f}, but {expected:.4f} is right{why}."
        return None


sheet, at_infinity = Sheet(), AtInfinity()
log_prob_of_rest, nearest, frechet = LogProbOfRest(), Nearest(), Frechet()
