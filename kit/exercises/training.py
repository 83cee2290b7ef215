"""The exercises of notebook 04."""

import math

from . import Exercise, blank


def not_a_number(value) -> str | None:
    """The sentence for a result that is no number, else None."""
    if sentence := blank(value):
        return sentence
    try:
        float(value)
    except (TypeError, ValueError):
        return f"a number was expected, not {type(value).__name__}."
    return None


class NumberOfSteps(Exercise):
    """How many batches cover the training pictures."""

    hints = ("Divide, and round up: math.ceil, or a whole-number division after adding batch_size - 1.",)

    @staticmethod
    def answer(pictures: int, batch_size: int) -> int:
        return math.ceil(pictures / batch_size)

    def problem(self, attempt) -> str | None:
        for pictures, batch_size, expected in [(4159, 16, 260), (4000, 16, 250), (5, 16, 1), (17, 1, 17)]:
            steps = attempt(pictures, batch_size)
            if sentence := not_a_number(steps):
                return sentence
            case = f"{pictures} pictures in batches of {batch_size}"
            if steps == expected - 1 and pictures % batch_size:
                return f"{case} make {expected} steps, not {steps}: the last, smaller batch is left out."
            if steps == expected + 1 and pictures % batch_size == 0:
                return f"{case} make {expected} steps, not {steps}: the pictures come out even, no batch is left over."
            if steps != expected:
                return f"{case} make {expected} steps, not {steps}."
            if not isinstance(steps, int):
                return f"{steps!r} is a {type(steps).__name__}; the number of steps is an int."
        return None


class MeanOfBatches(Exercise):
    """The mean over pictures from the means over batches."""

    hints = ("A batch's mean times its size is its sum. Add the sums, then divide by the number of all pictures.",)

    @staticmethod
    def answer(losses: list[float], sizes: list[int]) -> float:
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

    def problem(self, attempt) -> str | None:
        cases = [([4.0, 5.0, 9.0], [16, 16, 8], 5.4), ([4.0, 5.0], [8, 8], 4.5), ([3.0], [7], 3.0)]
        for losses, sizes, expected in cases:
            mean = attempt(losses, sizes)
            if sentence := not_a_number(mean):
                return sentence
            mean, case = float(mean), f"losses {losses} of batches of {sizes}"
            total = expected * sum(sizes)
            if abs(mean - expected) < 1e-5:
                continue
            typical = {
                sum(losses) / len(losses): "this counts the small batch as much as a full one",
                total: "this is the sum over the pictures; divide by their number",
                total / len(losses): "you divided by the number of batches, not of pictures",
                total / (len(sizes) * sizes[0]): "you divided as if every batch were full",
            }
            why = next((": " + text for value, text in typical.items() if abs(mean - value) < 1e-5), "")
            return f"{case} have the mean {expected}, not {mean:.4g}{why}."
        return None


class WarmupCosine(Exercise):
    """The learning rate of a step: warm-up times cosine."""

    hints = (
        "Warm-up: min(1, (step + 1) / warmup), where warmup = 0 must not divide by zero; max(1, warmup) helps. "
        "Cosine: 0.5 * (1 + cos(angle)), with an angle that goes from 0 to pi (radians) as step goes from 0 to total.",
    )

    @staticmethod
    def answer(step: int, total: int, warmup: int, lr: float) -> float:
        rising = min(1.0, (step + 1) / max(1, warmup))
        falling = 0.5 * (1 + math.cos(math.pi * step / total))
        return lr * rising * falling

    def problem(self, attempt) -> str | None:
        # by hand: cos(pi/4) = 0.70711, cos(pi/2) = 0, cos(3 pi/4) = -0.70711, cos(4 pi/100) = 0.99211
        cases = [
            (0, 100, 10, 1.0, 0.1, "the warm-up begins at 1 / warmup, so that the first step already learns"),
            (4, 100, 10, 1.0, 0.49803, "half of the warm-up times a cosine that has hardly begun to fall"),
            (50, 100, 10, 1.0, 0.5, "half-way the cosine is 0; a warm-up that is over multiplies by 1"),
            (25, 100, 10, 1.0, 0.85355, "the cosine counts from step 0, not from the end of the warm-up"),
            (75, 100, 10, 0.004, 0.00058579, "lr scales everything"),
            (0, 100, 0, 1.0, 1.0, "without warm-up the first step has the full rate"),
        ]
        for step, total, warmup, lr, expected, why in cases:
            try:
                rate = attempt(step, total, warmup, lr)
            except ZeroDivisionError:
                return f"at step {step} of {total} with warmup = {warmup} it divides by zero."
            if sentence := not_a_number(rate):
                return sentence
            if abs(float(rate) - expected) > 1e-3 * expected:
                return (
                    f"at step {step} of {total}, with warmup = {warmup} and lr = {lr}, the rate is {float(rate):.5g}, "
                    f"but it should be {expected:.5g}: {why}."
                )
        return None


class Ema(Exercise):
    """The exponential moving average of a series."""

    hints = (
        "Keep one number, `average`, which begins as values[0]. For each value: average = decay * average + "
        "(1 - decay) * value, and append it to a list.",
    )

    @staticmethod
    def answer(values: list[float], decay: float) -> list[float]:
        average, averages = values[0], []
        for value in values:
            average = decay * average + (1 - decay) * value
            averages.append(average)
        return averages

    def problem(self, attempt) -> str | None:
        # by hand: 0.9 * 1 + 0.1 * 2 = 1.1, then 0.9 * 1.1 + 0.1 * 4 = 1.39
        for values, decay, expected in [([1.0, 2.0, 4.0], 0.9, [1.0, 1.1, 1.39]), ([3.0, 5.0], 0.0, [3.0, 5.0])]:
            averages = attempt(values, decay)
            if sentence := blank(averages):
                return sentence
            if not hasattr(averages, "__len__") or len(averages) != len(values):
                return f"{len(values)} values have {len(values)} averages, one after each; give them all as a list."
            averages = [float(average) for average in averages]
            if abs(averages[0] - (1 - decay) * values[0]) < 1e-6 and decay:
                return f"the first average is {averages[0]:.4g}: begin with the first value, {values[0]}, not with 0."
            if abs(averages[1] - (decay * values[1] + (1 - decay) * values[0])) < 1e-6:
                return f"{values[:2]} average to {averages[1]:.4g}: decay weighs the old average, not the new value."
            for n, (is_, should) in enumerate(zip(averages, expected, strict=True)):
                if abs(is_ - should) > 1e-5:
                    return f"with decay {decay}, the average after {values[: n + 1]} should be {should}, not {is_:.5g}."
        return None


number_of_steps, mean_of_batches = NumberOfSteps(), MeanOfBatches()
warmup_cosine, ema = WarmupCosine(), Ema()
