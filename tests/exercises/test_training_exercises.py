import copy
import inspect
import math
import re
import textwrap

import numpy as np
import pytest
import torch
from common import check_exercise, in_a_cell, pasted, said

from kit.exercises import pieces
from kit.exercises import training as exercises
from kit.exercises.solutions import training as solutions
from utils.mixture import bits_per_dim, log_prob
from utils.training import TrainConfig, build_optimizer

# what notebook 04 has made or imported when it asks
GIVEN = {"log_prob": log_prob, "bits_per_dim": bits_per_dim, "TrainConfig": TrainConfig, "copy": copy}
GIVEN |= {"build_optimizer": build_optimizer, "train_step": solutions.train_step}
GIVEN |= {"overwrite": lambda averaged, model, *_: averaged.load_state_dict(model.state_dict())}
GIVEN |= {"learning_rate": solutions.learning_rate, "update_average": solutions.update_average}


def altered(exercise, *changes: tuple[str, str]):
    """The solution with some of its text replaced: (what stands there, what stands there instead)."""
    text = textwrap.dedent(inspect.getsource(exercise.answer))
    for old, new in changes:
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    return in_a_cell(text, {"math": math, "torch": torch} | GIVEN)[exercise.name]


def check_piece(exercise, wrong: dict[str, list[tuple[str, str]] | object]) -> None:
    """`wrong` has a list of changes of the solution in the place of an answer, or an answer."""
    attempts = {s: altered(exercise, *each) if isinstance(each, list) else each for s, each in wrong.items()}
    of = inspect.signature(exercise.answer).parameters.values()
    arguments = ", ".join(each.name + ("" if each.default is each.empty else f"={each.default}") for each in of)
    blank = in_a_cell(f"def {exercise.name}({arguments}): ...")[exercise.name]
    state = torch.random.get_rng_state()
    check_exercise(exercise, blank, attempts, GIVEN)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_number_of_steps():
    wrong = {
        "the last, smaller batch is left out": lambda pictures, batch_size: pictures // batch_size,
        "the pictures come out even": lambda pictures, batch_size: pictures // batch_size + 1,
        "not 66544": lambda pictures, batch_size: pictures * batch_size,
        "260.0 is the right number, but a float": lambda pictures, batch_size: float(math.ceil(pictures / batch_size)),
        "not list": lambda pictures, batch_size: [260],
        "pictures in batches of": lambda pictures, batch_size: {4159: 260, 4000: 250, 5: 1, 17: 17}.get(pictures, 3),
    }
    wrong["260.0 is the right number, but"] = lambda pictures, batch_size: np.ceil(pictures / batch_size)
    check_exercise(exercises.number_of_steps, lambda pictures, batch_size: ..., wrong)


@pytest.mark.parametrize("kind", [np.int64, np.int32, torch.tensor, int])
def test_a_number_of_steps_of_any_whole_kind(kind):
    assert said(exercises.number_of_steps.check, lambda n, size: kind(-(-n // size))) == "Right."


def test_mean_of_batches():
    def total(losses, sizes):
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True))

    known = {4.0: 5.4, 3.0: 3.0}
    wrong = {
        "as much as a full one": lambda losses, sizes: sum(losses) / len(losses),
        "divide by their number": total,
        "by the number of batches": lambda losses, sizes: total(losses, sizes) / len(losses),
        "as if every batch were full": lambda losses, sizes: total(losses, sizes) / (sizes[0] * len(sizes)),
        "not 4": lambda losses, sizes: losses[0],
        "of batches of": lambda losses, sizes: 4.5 if len(sizes) == 2 else known.get(losses[0], 5.0),
        "not ndarray": lambda losses, sizes: np.array(losses) * np.array(sizes),
    }
    check_exercise(exercises.mean_of_batches, lambda losses, sizes: ..., wrong)


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor])
def test_a_mean_of_any_kind(kind):
    average = lambda losses, sizes: kind(np.average(losses, weights=sizes))  # noqa: E731
    assert said(exercises.mean_of_batches.check, average) == "Right."


def test_train_step():
    backward, step = ("    loss.backward()\n", ""), ("    optimizer.step()\n", "")
    back = "    return loss.detach()"
    clip = "        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)"
    again = "    return bits_per_dim(-log_prob(model(x, y), x), x.shape[-1]).mean().detach()"
    value = "torch.nn.utils.clip_grad_value_(model.parameters(), grad_clip)"
    each = "[torch.nn.utils.clip_grad_norm_([p], grad_clip) for p in model.parameters()]"
    late = [(f"    if grad_clip > 0:\n{clip}\n", ""), ("step()\n", f"step()\n    if grad_clip > 0:\n{clip}\n")]
    scale = "for p in model.parameters(): p.grad *= grad_clip / n"
    norm = "n = sum(p.grad.square().sum() for p in model.parameters()).sqrt()"
    wrong = {
        "a Python float: .item() makes a GPU wait": [(back, "    return loss.item()")],
        "return loss.detach()": [(back, "    return loss")],
        "one number for each picture": [(back, "    return bits_per_dim(nats, x.shape[-1]).detach()")],
        "nothing was returned": [(f"{back}\n", "")],
        "a bit is ln 2 of them": [("bits_per_dim(nats, x.shape[-1])", "(nats / x[0].numel())")],
        "this is the sum over the batch": [(".mean()", ".sum()")],
        "the sign is wrong": [("-log_prob", "log_prob")],
        "this is per pixel": [("bits_per_dim(nats, x.shape[-1])", "(3 * bits_per_dim(nats, x.shape[-1]))")],
        "divide by its 3 S S": [("bits_per_dim(nats, x.shape[-1])", "(nats / math.log(2))")],
        "these are the nats of a picture": [("bits_per_dim(nats, x.shape[-1])", "nats")],
        "this is the value after the step": [(back, again)],
        "the weights are as they were": [step],
        "the gradient of the first one is still in it": [("    optimizer.zero_grad()\n", "")],
        "look at what you minimise": [
            backward,
            ("    optimizer.step", "    (2 * loss).backward()\n    optimizer.step"),
        ],
        "the sum over the batch, not the mean": [("loss.backward", "(loss * len(x)).backward")],
        "nats per picture, not of bits": [("loss.backward", "nats.mean().backward")],
        "they go uphill": [("loss.backward", "(-loss).backward")],
        "nothing was clipped": [("grad_clip > 0", "grad_clip < 0")],
        "it has to happen between": late,
        "one norm for all weights together": [(clip.strip(), each)],
        "clipped norm is": [(clip.strip(), value)],
        "but it should be": [
            (clip.strip(), clip.strip().replace("model.parameters()", "optimizer.param_groups[0]['params']"))
        ],
        "leave its mode to whoever calls you": [("    nats =", "    model.eval()\n    nats =")],
        "was given 16, but the pictures' height is 8": [("x.shape[-1]", "16")],
        "was given 3, but the pictures' height": [("x.shape[-1]", "x.shape[1]")],
        "with no zero_grad()": [
            ("    optimizer.zero_grad()\n", ""),
            ("    optimizer.step", "    optimizer.zero_grad()\n    optimizer.step"),
        ],
        "no clipping to 0": [("    if grad_clip > 0:\n    ", "")],
        "3.333 times as far": [("optimizer.step()", "[p.data.sub_(0.1 * p.grad) for p in model.parameters()]")],
        "a norm below the limit stays": [(clip.strip(), f"{norm}; {scale}".replace("; for", "\n        for"))],
        "do not move along the gradient": [
            ("nats = -log_prob(model(x, y), x)", "nats = -log_prob(model(x, y * 0), x)")
        ],
    }
    check_piece(exercises.train_step, wrong)


def test_a_train_step_may_forget_the_gradient_afterwards():
    attempt = altered(
        exercises.train_step,
        ("    optimizer.zero_grad()\n", ""),
        ("optimizer.step()\n", "optimizer.step()\n    optimizer.zero_grad()\n"),
    )
    assert "Right." in said(exercises.train_step.check, attempt)


def test_learning_rate():
    rise, decay = "min(1.0, (step + 1) / max(1, config.warmup))", "config.lr_decay ** (step // steps_per_epoch)"
    end = "math.cos(math.pi * step / (config.epochs * steps_per_epoch))"
    wrong = {
        "6 right digits only": [("return rate * 0.5 * (1 +", "return rate * 0.5 * (1 + 1e-8 +")],
        "falls after each epoch, not at each step": [(decay, "config.lr_decay**step")],
        "the first epoch has the full rate; it": [(decay, "config.lr_decay ** (step // steps_per_epoch + 1)")],
        "has been multiplied in three times": [(decay, "(1 if step < steps_per_epoch else config.lr_decay)")],
        "not str": lambda config, step, steps_per_epoch: "fast",
        "so that the first step already learns": [("(step + 1) / max", "step / max")],
        "a warm-up that is over": [(rise, "(step + 1) / max(1, config.warmup)")],
        "it divides by zero": [("max(1, config.warmup)", "config.warmup")],
        "after a quarter of the run the angle is pi / 4": [(end, end.replace("math.pi", "2 * math.pi"))],
        "be 0.853553: after a quarter": [(end, end.replace("(config.epochs * steps_per_epoch)", "steps_per_epoch"))],
        "the rate is 0.75, but": [(f"0.5 * (1 + {end})", "(1 - step / (config.epochs * steps_per_epoch))")],
        "the cosine falls during the warm-up too": [
            ("    return rate * 0.5", "    if step < config.warmup:\n        return rate\n    return rate * 0.5")
        ],
        "(step, lr=2": lambda config, step, steps_per_epoch: config.lr * config.lr_decay ** (step // steps_per_epoch),
        "not from the end of the warm-up": [
            (end, "math.cos(math.pi * (step - config.warmup) / (config.epochs * steps_per_epoch - config.warmup))")
        ],
        "at step 25 of 5 epochs": [(end, "math.cos(step / (config.epochs * steps_per_epoch))")],
        "the rate is 1.70711, but": [("return rate * 0.5 * (1", "return rate * (1")],
    }
    check_piece(exercises.learning_rate, wrong)


@pytest.mark.parametrize(
    "kind, sentence", [("np.float64", "Right."), ("torch.tensor", "if it is a 32-bit number, use Python's floats")]
)
def test_a_rate_of_another_kind(kind, sentence):
    source = f"def learning_rate(config, step, steps_per_epoch): return {kind}(rate(config, step, steps_per_epoch))"
    rate = in_a_cell(inspect.getsource(solutions.learning_rate), dict(GIVEN, math=math))["learning_rate"]
    attempt = in_a_cell(source, {"np": np, "torch": torch, "rate": rate})["learning_rate"]
    assert sentence in said(exercises.learning_rate.check, attempt)


def test_update_average():
    copied = "average.copy_(decay * average + (1 - decay) * weight)"
    first = "decay = min(decay, (1 + step) / (10 + step))"
    both = "averaged.parameters(), model.parameters(), strict=True"
    two = "[*averaged.parameters()][:2], [*model.parameters()][:2], strict=True"
    new = "[setattr(m, n, torch.nn.Parameter(p.detach(), False)) for m, o in zip(averaged.modules(), model.modules()) "
    new += "for n, p in list(o._parameters.items())]"
    wrong = {
        "nothing has changed": [(copied, "average = decay * average + (1 - decay) * weight")],
        "remembers how it was computed": [("@torch.no_grad()\n", "")],
        "those of `averaged` may": [("average.copy_", "weight.copy_")],
        "other tensors as parameters": [("    for average", f"    {new}\n    for average")],
        "decay weighs the old average": [(copied, "average.lerp_(weight, decay)")],
        "early on, the decay is": [(f"    {first}\n", "")],
        "`decay` is the most": [(first, first.replace("min(decay, ", "float("))],
        "be 1.9": [(first, "decay = min(decay, (1 + step) / 100)")],
        "after step 0, parameter label.weight": [(both, two)],
        "after step 9, parameter": [(first, f"{first} if step != 9 else 0.4 * decay")],
    }  # fmt: skip
    check_piece(exercises.update_average, wrong)


def test_an_average_by_lerp_or_by_data_is_right():
    copied = "average.copy_(decay * average + (1 - decay) * weight)"
    for other in (
        "average.lerp_(weight, 1 - decay)",
        "average.data = decay * average.data + (1 - decay) * weight.data",
    ):
        assert "Right." in said(exercises.update_average.check, altered(exercises.update_average, (copied, other)))


def test_fit():
    order = "order = torch.randperm(len(labels), generator=generator)"
    made = "    generator = torch.Generator().manual_seed(config.seed)\n"
    rate = '                group["lr"] = rate * group.get("relative_lr", 1.0)'
    average = "            update_average(averaged, model, config.ema_decay, step)\n"
    step = "            bits = train_step(model, pictures[batch], labels[batch], optimizer, config.grad_clip)\n"
    told = "            if on_step:\n                on_step(step, bits, averaged)\n"
    split = "order.split(config.batch_size)"
    wrong = {
        "nothing was returned": [("    return averaged\n", "")],
        "it returns `model` itself": [("    return averaged", "    return model")],
        "the averaged network was expected, not OrderedDict": [("return averaged", "return averaged.state_dict()")],
        "in training mode": [(".eval()", "")],
        "ask for gradients": [(".requires_grad_(False)", "")],
        "the last batch of 2 is left out": [(split, f"[b for b in {split} if len(b) == config.batch_size]")],
        "but the network saw": [("range(config.epochs)", "range(config.epochs - 1)")],
        "pictures come with the labels of others": [("labels[batch]", "labels[: len(batch)]")],
        "in evaluation mode": [("    model.train()\n", "")],
        "nothing is shuffled": [(order, "order = torch.arange(len(labels))")],
        "it is that of epoch 0 again": [(made, ""), (f"        {order}", f"        {made.strip()}\n        {order}")],
        "some pictures come twice": [(split, f"(order // 2 * 2).{split.removeprefix('order.')}")],
        "seeded once, gives": [
            (made, "    torch.manual_seed(config.seed)\n"), (order, "order = torch.randperm(len(labels))")
        ],
        "batches of [3, 3, 3, 3, 3, 3]": [(split, "order.split(4)")],
        "9 pictures in batches of 3, 2 epochs are": [("range(config.epochs)", "range(3)")],
        "0.01667: count the steps": [("            step += 1\n", "")],
        "the smaller batch among them": [("math.ceil(len(labels) / ", "(len(labels) // ")],
        "and the number of steps of an epoch": [("config, step, steps_per_epoch", "config, step, config.epochs")],
        "it is 0: set group": [("1.0)", "0.0)")],
        "but it was given 2": [("on_step(step, bits, averaged)", "on_step(step, bits)")],
        "hand on the tensor": [("on_step(step, bits,", "on_step(step, bits.item(),")],
        "the optimiser is built anew": [
            ("    optimizer = build_optimizer(model, config)\n", ""),
            (f"        {order}", f"        optimizer = build_optimizer(model, config)\n        {order}"),
        ],
        "the order of epoch 0 is": [("manual_seed(config.seed)", "manual_seed(config.seed + 1)")],
        "the optimiser's rate never changes": [(rate, "                pass")],
        "multiply by its relative_lr": [(rate, '                group["lr"] = rate')],
        "of every group before each step": [("for group in optimizer.param_groups:", "for group in []:")],
        "set it before train_step": [(f"{step}", ""), ("            rate =", f"{step}            rate =")],
        "through the whole run": [("learning_rate(config, step, ", "learning_rate(config, step % steps_per_epoch, ")],
        "use build_optimizer": [("build_optimizer(model, config)", "torch.optim.Adam(model.parameters(), config.lr)")],
        "but it heard of []": [(told, "")],
        "but it heard of [1, 2": [("on_step(step, bits", "on_step(step + 1, bits")],
        "takes three things": [("on_step(step, bits, averaged)", "on_step(step, averaged)")],
        "must be given the averaged network": [("bits, averaged)", "bits, model)")],
        "as bits; train_step returned": [("on_step(step, bits,", "on_step(step, 2 * bits,")],
        "call on_step after update_average": [(told, ""), (average, f"{told}{average}")],
        "still that of the first weights": [(average, "")],
        "the network's own last weights": [(average, average.replace("update_average", "overwrite"))],
        "before the step: it lags": [(average, ""), (step, f"{average}{step}")],
        "the number of the next step": [("config.ema_decay, step)", "config.ema_decay, step + 1)")],
        "with `averaged` before `model`": [("update_average(averaged, model", "update_average(model, averaged")],
        "begins anew in each epoch": [("config.ema_decay, step)", "config.ema_decay, step % steps_per_epoch)")],
        "give it config.ema_decay": [("config.ema_decay, step)", "0.0, step)")],
        "must be given config.grad_clip": [(", optimizer, config.grad_clip)", ", optimizer)")],
    }  # fmt: skip
    check_piece(exercises.fit, wrong)


def test_a_kept_fit_needs_nothing_from_the_notebook(mine):
    given = dict(GIVEN)
    for exercise in (exercises.train_step, exercises.update_average):
        said(exercise.check, pasted(exercise, GIVEN))
        given[exercise.name] = pieces.state(exercise.name)[0]
    assert "Right. Kept as " in said(exercises.fit.check, pasted(exercises.fit, given))
    text = (mine / "fit.py").read_text()
    assert re.findall(r"^def (\w+)", text, re.MULTILINE) == ["train_step", "update_average", "fit"]
    assert said(pieces.take, "fit") == "fit: yours"
