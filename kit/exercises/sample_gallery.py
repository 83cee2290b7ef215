"""Exercises of notebook 06: pictures on a sheet, what a completion is worth, nearest neighbours, Fréchet's distance."""

import torch
from torch import Tensor

from utils import mixture
from utils.data import to_bytes, to_float
from utils.model import ConditionalPixelCNN, ModelConfig

from . import Exercise, blank, no_number, some, wrong_shape


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
        sheet = attempt(to_float(levels), columns)
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


class LogProbOfRest(Exercise):
    """The log-likelihood of the rows that were not given."""

    name = "log_prob_of_rest"
    hints = (
        "`mixture.log_prob(model(x, y), x, reduce=False)` holds one number a pixel, (B, H, W). Keep the rows from "
        "`nr_given` on and add them up.",
    )

    @staticmethod
    @torch.no_grad()
    def answer(model, x: Tensor, y: Tensor, nr_given: int) -> Tensor:
        log_pixels = mixture.log_prob(model(x, y), x, reduce=False)  # (B, H, W)
        return log_pixels[:, nr_given:].sum(dim=(1, 2))

    def problem(self, attempt) -> str | None:
        config = ModelConfig(4, nr_resnet=1, nr_filters=4, nr_logistic_mix=2, fusion=("late",))
        model = ConditionalPixelCNN(config).double().eval()
        for parameter in model.parameters():  # untrained it would hardly look at the label and at the rows above
            torch.nn.init.normal_(parameter, std=0.5)
        cases = [(2, 16, 8, 12), (3, 16, 4, some(1, 3)), (1, 8, 16, some(5, 7)), (2, 8, 8, 0)]
        for nr_pictures, height, width, nr_given in cases:
            x = to_float(torch.randint(0, 256, (nr_pictures, 3, height, width), dtype=torch.uint8)).double()
            y = torch.tensor([1, 3, 2])[:nr_pictures]
            if sentence := self._wrong_value(attempt, model, x, y, nr_given):
                return f"{nr_pictures} pictures, {height} rows high, of which {nr_given} were given: {sentence}"
        return None

    @staticmethod
    def _wrong_value(attempt, model, x: Tensor, y: Tensor, nr_given: int) -> str | None:
        height, width = x.shape[2:]

        @torch.no_grad()
        def by_rows(x: Tensor, y: Tensor) -> Tensor:
            params = model(x, y)
            rows = [(params[:, :, i : i + 1], x[:, :, i : i + 1]) for i in range(x.shape[2])]
            return torch.stack([mixture.log_prob(*row) for row in rows], dim=1)  # (B, H)

        rows = by_rows(x, y)
        truth = rows[:, nr_given:].sum(dim=1)
        value = attempt(model, x.clone(), y.clone(), nr_given)
        complaint = blank(value) or wrong_shape(value, (len(x),))
        if complaint:
            return complaint

        def equals(other: Tensor) -> bool:
            return torch.allclose(value.detach().double(), other, rtol=1e-5)

        known = {
            "all rows are in it, the given ones too": rows.sum(dim=1),
            "these are the rows that were given; the others were asked for": rows[:, :nr_given].sum(dim=1),
            "the first row that was not given is missing": rows[:, nr_given + 1 :].sum(dim=1),
            "the last row that was given is in it": rows[:, max(nr_given - 1, 0) :].sum(dim=1),
            "the pixels are averaged, but log-probabilities of a whole add up": (truth / (width * (height - nr_given))),
            "the sign is turned: a log-likelihood is below 0 here, its negative is a loss": -truth,
            "the label is not used: this is the value for class 0": by_rows(x, 0 * y)[:, nr_given:].sum(dim=1),
        }
        if nr_given % 4 == 0:
            known["the model saw these rows alone; hand it the whole picture, for each row depends on those above"] = (
                by_rows(x[:, :, nr_given:], y).sum(dim=1)
            )
        first = f"{float(value[0].detach()):.1f} nats, but its rows from {nr_given} on have {float(truth[0]):.1f}"
        said = f"picture 0 gives {first}"
        found = next((sentence for sentence, other in known.items() if equals(other)), said)
        return None if equals(truth) else f"{found}."


class Nearest(Exercise):
    """The training pictures that are closest to each sample."""

    name = "nearest"
    hints = (
        "Flatten the pictures to (N, 3*S*S) and take torch.cdist: all differences at once would be N*M*3*S*S numbers, "
        "more than your memory. Then `topk` with largest=False; its second answer holds the indices.",
    )

    @staticmethod
    def answer(samples: Tensor, training: Tensor, count: int) -> Tensor:
        distances = torch.cdist(samples.flatten(1), training.flatten(1))  # (N, M)
        return distances.topk(count, largest=False).indices  # (N, count)

    def problem(self, attempt) -> str | None:
        training = torch.rand(40, 3, 4, 4) * 2 - 1
        samples = (training[[7, 0, 39, 21, 3]] + 0.3 * torch.randn(5, 3, 4, 4)).clamp(-1, 1)
        # hand-made: from a picture of zeros all a little off (L2 1.04, L1 7.2) or two numbers far off (L2 1.13, L1 1.6)
        samples[4] = 0
        training[10], training[11], training[12] = 0, 0.15, 0.25
        training[10, 1, 2, 1:3] = 0.8
        if sentence := self._wrong_neighbours(attempt, samples, training, 3):
            return sentence
        for count in (1, some(4, 8), 2):
            size, nr_samples = some(2, 6), some(1, 4)
            samples, training = torch.randn(nr_samples, 3, size, size), torch.randn(some(10, 30), 3, size, size)
            if sentence := self._wrong_neighbours(attempt, samples.tanh(), training.tanh(), count):
                return f"{nr_samples} samples, {len(training)} training pictures, count={count}: {sentence}"
        return None

    @staticmethod
    def _wrong_neighbours(attempt, samples: Tensor, training: Tensor, count: int) -> str | None:
        found = attempt(samples.clone(), training.clone(), count)
        complaint = blank(found) or wrong_shape(found, (len(samples), count))
        if complaint:
            return complaint
        if found.is_floating_point() or found.dtype == torch.bool:
            return "these are no whole numbers; the indices of the pictures were asked for, not their distances."
        found = found.long()
        if outside := [n for n in found.flatten().tolist() if not 0 <= n < len(training)]:
            return f"there is no training picture {outside[0]}; they are numbered from 0 to {len(training) - 1}."
        difference = samples.double()[:, None] - training.double()[None]  # (N, M, 3, S, S)
        l2, l1 = difference.square().sum((2, 3, 4)), difference.abs().sum((2, 3, 4))
        product = samples.double().flatten(1) @ training.double().flatten(1).T
        truth = l2.argsort(dim=1)[:, :count]

        def as_near(distances: Tensor) -> Tensor:  # two pictures may be equally near, up to rounding
            return torch.isclose(distances.gather(1, found), distances.sort(dim=1).values[:, :count], 1e-4, 1e-6)

        if as_near(l2).all():
            return None
        if as_near(-l2).all():
            return "these are the pictures farthest away; topk takes the largest unless you say largest=False."
        if as_near(l1).all():
            return "this is the order of the L1 distance (absolute differences); L2 squares them first."
        if as_near(-product).all():
            return "the largest product is not the smallest distance: a picture with large values wins it too often."
        if torch.equal(found.sort(dim=1).values, truth.sort(dim=1).values):
            return "the right pictures, but not the nearest first."
        n, k = (~as_near(l2)).nonzero()[0].tolist()
        return f"for sample {n}, neighbour {k} should be picture {truth[n, k]}, not {found[n, k]}."


class Frechet(Exercise):
    """The Fréchet distance of two Gaussians."""

    name = "frechet"
    hints = (
        "The root of cov1: `values, vectors = torch.linalg.eigh(cov1)`, then vectors * sqrt(values) @ vectors.T. "
        "root @ cov2 @ root is symmetric and has the eigenvalues of cov1 @ cov2; torch.linalg.eigvalsh gives them, and "
        "the trace of a root is the sum of their roots. Clamp eigenvalues at 0: rounding makes some slightly negative.",
    )

    @staticmethod
    def answer(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
        values, vectors = torch.linalg.eigh(cov1)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # root @ root = cov1
        middle = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
        return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * middle)

    def problem(self, attempt) -> str | None:
        steps = (self._one_dimension, self._two_dimensions, self._singular, self._many_dimensions)
        return next(filter(None, (step(attempt) for step in steps)), None)

    @staticmethod
    def _one_dimension(attempt) -> str | None:
        value = attempt(*(torch.tensor(numbers).double() for numbers in ([0], [[1]], [3], [[4]])))
        if sentence := no_number(value):
            return sentence
        case = "the Gaussians with means 0 and 3, variances 1 and 4"
        by_hand = f"(0 - 3)**2 + 1 + 4 - 2 * sqrt(1 * 4) = 10, not {float(value):.4g}"
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
        sentence = next((f"{sentence}: " for wrong, sentence in known.items() if abs(float(value) - wrong) < 1e-6), "")
        return f"{sentence}{case} give {by_hand}."

    @staticmethod
    def _two_dimensions(attempt) -> str | None:
        """Covariances that do not commute: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2x2 matrix."""
        first, second = torch.tensor([[[2, 0.6], [0.6, 1]], [[1, -0.8], [-0.8, 3]]], dtype=torch.float64)
        zero, mean = torch.tensor([[0, 0], [1, -2]]).double()
        product = first @ second
        middle = (product.trace() + 2 * product.det().sqrt()).sqrt()
        truth = float(5 + first.trace() + second.trace() - 2 * middle)
        value = attempt(zero, first.clone(), mean, second.clone())
        if sentence := no_number(value):
            return sentence
        value = float(value)
        if abs(value - truth) < 1e-6:
            return None
        elementwise = float(5 + first.trace() + second.trace() - 2 * product.diagonal().sqrt().sum())
        roots = [torch.linalg.eigvalsh(cov).sqrt().sum() for cov in (first, second)]
        if abs(value - elementwise) < 1e-6:
            return "the root is taken of each entry, but it is the root of a matrix: the R with R @ R = cov1 @ cov2."
        if abs(value - float(5 + first.trace() + second.trace() - 2 * roots[0] * roots[1])) < 1e-6:
            return "the trace of a product is not the product of the traces."
        return f"for covariances that are not diagonal it gives {value:.4f}, but {truth:.4f} is right."

    @staticmethod
    def _singular(attempt) -> str | None:
        """4 pictures in 8 features: singular, as with real feature sets that are too small."""
        few = torch.randn(4, 8, dtype=torch.float64)
        singular, mean = torch.cov(few.T), few.mean(dim=0)
        value = attempt(mean.clone(), singular.clone(), mean.clone(), singular.clone())
        if sentence := no_number(value):
            return sentence
        if not abs(float(value)) < 1e-4:
            found = f"with a singular covariance (4 pictures, 8 features) it gives {float(value):.4g}"
            why = "rounding makes eigenvalues slightly negative; clamp them at 0 before the root"
            return f"a Gaussian is at distance 0 from itself, but {found}: {why}."
        return None

    @staticmethod
    def _many_dimensions(attempt) -> str | None:
        """The covariances are A A' and B B', and then tr sqrt(A A' B B') is the sum of A'B's singular values."""
        for size in (1, some(3, 5), some(6, 9)):
            a, b = torch.randn(2, size, size + 1, dtype=torch.float64)
            mean1, mean2 = torch.randn(2, size, dtype=torch.float64)
            truth = (mean1 - mean2).square().sum() + a.square().sum() + b.square().sum()
            truth = float(truth - 2 * torch.linalg.svdvals(a.T @ b).sum())
            value = attempt(mean1.clone(), a @ a.T, mean2.clone(), b @ b.T)
            if sentence := no_number(value):
                return sentence
            if not abs(float(value) - truth) < 1e-5 * max(1.0, truth):
                return f"for two Gaussians in {size} dimensions it gives {float(value):.4f}, but {truth:.4f} is right."
        return None


sheet = Sheet()
log_prob_of_rest = LogProbOfRest()
nearest = Nearest()
frechet = Frechet()
