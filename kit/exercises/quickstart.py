"""The exercises of notebook 00."""

import torch
from torch import Tensor

from . import Exercise, blank, some, wrong_shape


class ToUnit(Exercise):
    """From bytes to the scale that the network sees."""

    name = "to_unit"
    hints = (
        "0 must become -1 and 255 must become 1; what lies between is spread evenly: one division, one subtraction.",
    )

    @staticmethod
    def answer(images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1

    def problem(self, attempt) -> str | None:
        by_hand = {0: -1.0, 1: -0.992157, 51: -0.6, 128: 0.003922, 255: 1.0}
        if sentence := self._wrong_byte(attempt, torch.tensor(list(by_hand), dtype=torch.uint8), by_hand):
            return sentence
        darkest, brightest = some(1, 99), some(150, 254)
        shape = [some(1, 4) for _ in range(4)]
        images = torch.randint(darkest, brightest, shape, dtype=torch.uint8)
        if sentence := self._wrong_byte(attempt, images, {n: 2 * n / 255 - 1 for n in range(256)}):
            return f"in pictures that are neither black nor white anywhere: {sentence}"
        return None

    @staticmethod
    def _wrong_byte(attempt, images: Tensor, expected: dict[int, float]) -> str | None:
        result = attempt(images.clone())
        if sentence := blank(result) or wrong_shape(result, tuple(images.shape)):
            return sentence
        if not result.is_floating_point():
            return f"the result is {result.dtype}: bytes cannot hold -0.6, so turn them into floats first."
        for byte, is_ in zip(images.flatten().tolist(), result.flatten().tolist(), strict=True):
            if not abs(is_ - expected[byte]) < 1e-4:
                return f"byte {byte} becomes {is_:.4f}, but it should become {expected[byte]:.4f}."
        return None


def some_nats(count: int, nr_classes: int) -> Tensor:
    """Log-likelihoods as pictures have them, (count, nr_classes): row 0's last is the largest, row 1's last but one."""
    nats = -8000 + 300 * torch.randn(count, nr_classes, dtype=torch.float64)
    for n, row in enumerate(nats):
        largest, last = int(row.argmax()), (-1 - n) % nr_classes
        row[[largest, last]] = row[[last, largest]]
    return nats


class Likeliest(Exercise):
    """The label that a picture is given."""

    name = "likeliest"
    hints = (
        "Each row holds one picture's log-likelihood under each label. Which column is largest? See torch.argmax.",
    )

    @staticmethod
    def answer(log_likelihoods: Tensor) -> Tensor:
        return log_likelihoods.argmax(dim=1)

    def problem(self, attempt) -> str | None:
        by_hand = torch.tensor([[-9000.0, -9100.0, -8999.0, -9500.0], [-7000.0, -7001.0, -7600.0, -7900.0]])
        for nats in (by_hand, some_nats(1, 4), some_nats(7, 5), some_nats(5, some(6, 11))):
            result = attempt(nats.clone())
            if sentence := blank(result) or wrong_shape(result, (len(nats),)):
                return f"{tuple(nats.shape)} log-likelihoods: {sentence}"
            if result.is_floating_point() or result.dtype == torch.bool:
                return f"the result is {result.dtype}, but labels are whole numbers: the index of a column."
            if result.tolist() == nats.argmin(dim=1).tolist():
                return "you took the smallest; a log-likelihood nearer to zero is the greater one."
            for row, is_ in enumerate(result.tolist()):
                should = max(range(nats.shape[1]), key=nats[row].tolist().__getitem__)
                if is_ != should:
                    return (
                        f"picture {row} with log-likelihoods {rounded(nats[row])} should get label {should}, not {is_}."
                    )
        return None


class Lead(Exercise):
    """How sure the decision is."""

    name = "lead"
    hints = ("torch.topk(log_likelihoods, 2, dim=1).values gives the two largest of each row, in order.",)

    @staticmethod
    def answer(log_likelihoods: Tensor) -> Tensor:
        first, second = log_likelihoods.topk(2, dim=1).values.unbind(dim=1)
        return first - second

    def problem(self, attempt) -> str | None:
        by_hand = torch.tensor([[-9000.0, -9100.0, -8999.0, -9500.0], [-7000.0, -7010.0, -7600.0, -7900.0]])
        tie = torch.tensor([[-5000.0, -6000.0, -5000.0]])
        for nats in (by_hand, some_nats(1, 4), tie, some_nats(6, 2), some_nats(5, some(5, 11))):
            result = attempt(nats.clone())
            if sentence := blank(result) or wrong_shape(result, (len(nats),)):
                return f"{tuple(nats.shape)} log-likelihoods: {sentence}"
            if (result < 0).any():
                return "a lead is never negative: take the larger minus the smaller."
            for row, is_ in enumerate(result.tolist()):
                *_, second, first = sorted(nats[row].tolist())
                if not abs(is_ - (first - second)) < 1e-2:
                    return (
                        f"picture {row} with log-likelihoods {rounded(nats[row])} leads by {first - second:.1f} nats, "
                        f"not by {is_:.1f}: compare the largest with the second largest."
                    )
        return None


def rounded(nats: Tensor) -> list[float]:
    return [round(value, 1) for value in nats.tolist()]


to_unit, likeliest, lead = ToUnit(), Likeliest(), Lead()
