import math

from common import check_exercise

from kit.exercises import training as exercises


def test_number_of_steps():
    wrong = {
        "the last, smaller batch is left out": lambda pictures, batch_size: pictures // batch_size,
        "the pictures come out even": lambda pictures, batch_size: pictures // batch_size + 1,
        "not 66544": lambda pictures, batch_size: pictures * batch_size,
        "is a float": lambda pictures, batch_size: float(math.ceil(pictures / batch_size)),
        "not list": lambda pictures, batch_size: [260],
    }
    check_exercise(exercises.number_of_steps, lambda pictures, batch_size: ..., wrong)


def test_mean_of_batches():
    def total(losses, sizes):
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True))

    wrong = {
        "as much as a full one": lambda losses, sizes: sum(losses) / len(losses),
        "divide by their number": total,
        "by the number of batches": lambda losses, sizes: total(losses, sizes) / len(losses),
        "as if every batch were full": lambda losses, sizes: total(losses, sizes) / (sizes[0] * len(sizes)),
        "not 4": lambda losses, sizes: losses[0],
    }
    check_exercise(exercises.mean_of_batches, lambda losses, sizes: ..., wrong)


def test_warmup_cosine():
    def cosine(step, total):
        return 0.5 * (1 + math.cos(math.pi * step / total))

    def from_zero(step, total, warmup, lr):
        return lr * min(1, step / max(1, warmup)) * cosine(step, total)

    def unbounded(step, total, warmup, lr):
        return lr * (step + 1) / max(1, warmup) * cosine(step, total)

    def after_the_warmup(step, total, warmup, lr):
        return lr * (step + 1) / warmup if step < warmup else lr * cosine(step - warmup, total - warmup)

    wrong = {
        "so that the first step already learns": from_zero,
        "a warm-up that is over": unbounded,
        "at step 4 of 100": after_the_warmup,
        "divides by zero": lambda step, total, warmup, lr: lr * min(1, (step + 1) / warmup) * cosine(step, total),
        "lr scales": lambda step, total, warmup, lr: min(1, (step + 1) / max(1, warmup)) * cosine(step, total),
    }
    check_exercise(exercises.warmup_cosine, lambda step, total, warmup, lr: ..., wrong)


def test_ema():
    def series(values, old, new, start):
        averages = []
        for value in values:
            start = old * start + new * value
            averages.append(start)
        return averages

    wrong = {
        "not with 0": lambda values, decay: series(values, decay, 1 - decay, 0.0),
        "weighs the old average": lambda values, decay: series(values, 1 - decay, decay, values[0]),
        "one after each": lambda values, decay: series(values, decay, 1 - decay, values[0])[-1],
        "should be 1.1": lambda values, decay: list(values),
    }
    check_exercise(exercises.ema, lambda values, decay: ..., wrong)
