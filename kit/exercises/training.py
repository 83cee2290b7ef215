"""The exercises of notebook 04."""

import contextlib
import copy
import itertools
import math
import operator

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from utils import mixture, training
from utils.model import ConditionalPixelCNN, ModelConfig
from utils.muon import Muon
from utils.training import TrainConfig

from . import Exercise, blank, close, difference, no_number, reason, some, wrong_shape
from .pieces import Piece
from .solutions import training as solutions
from .stand_ins import Grey, StandIn, random_pictures

kits_step, kits_rate, kits_average = training.train_step, training.learning_rate, training.update_average


def weights(model: nn.Module) -> Tensor:
    """All in one row, a copy."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def gradient_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of the batch's bits per dimension, for all weights in one row."""
    bits = mixture.bits_per_dim(-mixture.log_prob(model(x, y), x), x.shape[-1]).mean()
    return torch.cat([each.flatten() for each in torch.autograd.grad(bits, list(model.parameters()))])


class NumberOfSteps(Exercise):
    """How many batches cover the training pictures."""

    name = "number_of_steps"
    hints = ("Divide, and round up: math.ceil, or a whole-number division after adding batch_size - 1.",)

    @staticmethod
    def answer(pictures, batch_size):
        return math.ceil(pictures / batch_size)

    def problem(self, attempt) -> str | None:
        cases = [(4159, 16), (4000, 16), (5, 16), (17, 1), *torch.randint(1, 999, (4, 2)).tolist()]
        for pictures, batch_size in cases:
            steps, expected = attempt(pictures, batch_size), -(-pictures // batch_size)
            if sentence := no_number(steps):
                return sentence
            case = f"{pictures} pictures in batches of {batch_size}"
            if steps == expected - 1 and pictures % batch_size:
                return f"{case} make {expected} steps, not {steps}: the last, smaller batch is left out."
            if steps == expected + 1 and pictures % batch_size == 0:
                return f"{case} make {expected} steps, not {steps}: the pictures come out even, no batch is left over."
            if steps != expected:
                return f"{case} make {expected} steps, not {steps}."
            try:
                operator.index(steps)
            except TypeError:
                return (
                    f"{float(steps)} is the right number, but a float; range() takes whole numbers only: return an int."
                )
        return None


class MeanOfBatches(Exercise):
    """The mean over pictures from the means over batches."""

    name = "mean_of_batches"
    hints = ("A batch's mean times its size is its sum. Add the sums, then divide by the number of all pictures.",)

    @staticmethod
    def answer(losses, sizes):
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

    def problem(self, attempt) -> str | None:
        random = (4 + 4 * torch.rand(4)).tolist(), torch.randint(1, 32, (4,)).tolist()
        cases = [([4.0, 5.0, 9.0], [16, 16, 8]), ([4.0, 5.0], [8, 8]), ([3.0], [7]), random]
        for losses, sizes in cases:
            total = sum(loss * size for loss, size in zip(losses, sizes, strict=True))
            mean, expected = attempt(list(losses), list(sizes)), total / sum(sizes)
            if sentence := no_number(mean):
                return sentence
            if close(float(mean), expected, 1e-5):
                continue
            typical = {
                sum(losses) / len(losses): "this counts the small batch as much as a full one",
                total: "this is the sum over the pictures; divide by their number",
                total / len(losses): "you divided by the number of batches, not of pictures",
                total / (len(sizes) * sizes[0]): "you divided as if every batch were full",
            }
            why = reason(typical, float(mean), 1e-5)
            rounded = [round(loss, 3) for loss in losses]
            return f"losses {rounded} of batches of {sizes} have the mean {expected:.4g}, not {float(mean):.4g}{why}."
        return None


class TrainStep(Piece):
    """Forward, loss, gradient, clip, step."""

    kit = "utils.training.train_step"
    hints = (
        "Five things in this order: the batch's bits per dimension; forget the old gradient; work out the new one; "
        "limit its norm if that is asked for; let the optimiser move the weights.",
        "log_prob(model(x, y), x) has one number of nats for each picture. Its negative, through bits_per_dim with the "
        "pictures' height, is bits per dimension; take the mean over the batch. Keep that number for the return "
        "before anything moves.",
        "nats = -log_prob(model(x, y), x); loss = bits_per_dim(nats, x.shape[-1]).mean(); optimizer.zero_grad(); "
        "loss.backward(); if grad_clip > 0, torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip); "
        "optimizer.step(); return loss.detach().",
    )
    answer = staticmethod(solutions.train_step)

    @staticmethod
    def _stand_in(count: int, size: int, lr: float) -> tuple:
        model = StandIn()
        labels = torch.arange(count) % 3  # whoever ignores them is found out
        groups = [{"params": [weight]} for weight in model.parameters()]
        return model, random_pictures(count, size, size), labels, torch.optim.SGD(groups, lr)

    def number(self, attempt) -> str | None:
        model, x, y, optimizer = self._stand_in(3, 4, 0.1)
        bits = attempt(model, x, y, optimizer)
        if isinstance(bits, float):
            return "it is a Python float: .item() makes a GPU wait at every step; return the tensor, loss.detach()."
        if model.calls and not model.calls[-1][2]:
            return "the network is in evaluation mode, in which dropout is off; leave its mode to whoever calls you."
        if isinstance(bits, Tensor) and bits.shape == (3,):
            return "there is one number for each picture; take the mean over the batch."
        if sentence := blank(bits) or wrong_shape(bits, ()):
            return sentence
        if bits.requires_grad:
            return "the result still holds the graph of its computation, and with it much memory: return loss.detach()."
        return None

    def value(self, attempt) -> str | None:
        for count, size, n in [(1, 8, 3), (4, 4, 3), (3, 8, some(1, 4))]:
            model, y = Grey([0.5**n]), torch.zeros(count).long()
            x = torch.full((count, 3, size, size), Grey.LEVEL, dtype=torch.float64)
            bits = float(attempt(model, x, y, torch.optim.SGD(model.parameters(), 0.5)))
            given = f"each colour value has probability 1/{2**n}, which is {n} bits, but you return {bits:.5g}"
            typical = {
                n * math.log(2): "these are nats; a bit is ln 2 of them",
                n * count: "this is the sum over the batch; take the mean",
                -n: "the sign is wrong: the loss is minus the log-probability",
                3 * n: "this is per pixel, and a pixel has three colour values",
                3 * n * size**2: "this is per picture; divide by its 3 S S colour values",
                3 * n * size**2 * math.log(2): "these are the nats of a picture; bits_per_dim turns them into bits",
            }
            for other in {count, 3, 16, 32} - {size}:
                typical[n * (size / other) ** 2] = f"bits_per_dim was given {other}, but the pictures' height is {size}"
            with torch.no_grad():
                after = mixture.bits_per_dim(-mixture.log_prob(model(x, y), x), size).mean()
            if not close(bits, n, 1e-6):  # a 32-bit number will do
                return f"{given}{reason(typical | {float(after): 'this is the value after the step'}, bits)}."
        return None

    def descent(self, attempt) -> str | None:
        for count, lr in ((4, 0.1), (some(2, 6), 0.03)):
            model, x, y, optimizer = self._stand_in(count, 4, lr)
            before, gradient = weights(model), gradient_of(model, x, y)
            attempt(model, x, y, optimizer)
            if close(weights(model), before):
                return (
                    "the weights are as they were; optimizer.step() moves them, after backward(), with no zero_grad() "
                    "and no clipping to 0 in between."
                )
            factor = float((before - weights(model)) @ gradient / (lr * gradient @ gradient))
            if not close(weights(model), before - lr * factor * gradient):
                return "the weights do not move along the gradient of the batch's bits per dimension."
            if not close(factor, 1):
                typical = {
                    -1.0: "they go uphill",
                    count: "the gradient is that of the sum over the batch, not the mean",
                }
                typical[3 * 16 * math.log(2)] = "the gradient is that of nats per picture, not of bits per dimension"
                why = reason(typical, factor) or ": look at what you minimise, and let the optimiser step"
                return f"a step goes {factor:.4g} times as far as the gradient of the bits per dimension says{why}."
            between, gradient = weights(model), gradient_of(model, x, y)
            attempt(model, x, y, optimizer)
            if not close(weights(model), between - lr * gradient):
                return "the second step is wrong: the gradient of the first one is still in it; zero_grad() forgets it."
        return None

    def clipping(self, attempt) -> str | None:
        for share in (0.1, 0.7, 3.0):
            model, x, y, optimizer = self._stand_in(5, 4, 1.0)
            before, gradient = weights(model), gradient_of(model, x, y)
            limit = share * float(gradient.norm())
            attempt(model, x, y, optimizer, limit)
            moved = before - weights(model)
            case = f"the gradient's norm is {gradient.norm():.4g}, grad_clip {limit:.4g}; the clipped norm is"
            should, is_ = min(limit, float(gradient.norm())), float(moved.norm())
            if close(moved, gradient, 1e-4) and share < 1:
                return f"{case} {is_:.4g}: nothing was clipped; it has to happen between backward() and step()."
            if abs(is_ - should) > 1e-4 * should:
                why = "a norm below the limit stays as it is" if share > 1 else "one norm for all weights together"
                return f"{case} {is_:.4g}, but it should be {should:.4g}: {why}."
            if not close(moved / is_, gradient / gradient.norm(), 1e-4):
                return f"{case} right, but the direction has changed: clip the norm, not each number."
        return None

    def like_the_kits(self, attempt) -> str | None:
        config = ModelConfig(3, 1, 4, 2, image_size=8, dropout=0.0, fusion=("early", "middle"))
        one, no_scaler = ConditionalPixelCNN(config).double(), torch.amp.GradScaler(enabled=False)
        other = copy.deepcopy(one)
        ones, others = (torch.optim.Adam(model.parameters(), lr=1e-3) for model in (one, other))
        for step in range(3):
            x, y = random_pictures(2 + step % 2, 8, 8), torch.randint(0, 3, (2 + step % 2,))
            bits = attempt(one, x, y, ones, 0.5)
            expected = kits_step(other, x, y, others, no_scaler, torch.float32, 0.5)
            if sentence := difference(bits, expected, 1e-6):
                return f"the number at step {step} of a small network: {sentence}"
            if sentence := difference(weights(one), weights(other)):
                return f"the weights of a small network after step {step}: {sentence}"
        return None

    steps = {
        "it returns one number without a graph": number,
        "the number is the batch's bits per dimension before the step": value,
        "the weights move along the gradient, which is a new one at each step": descent,
        "the gradient's norm is clipped": clipping,
        "a network learns as with the kit's train_step": like_the_kits,
    }


class LearningRate(Piece):
    """Warm-up times schedule."""

    kit = "utils.training.learning_rate"
    hints = (
        "The rate is a product of three: lr, a factor for the warm-up and a factor for the schedule. Each factor is 1 "
        "where it has nothing to say.",
        "Warm-up: min(1, (step + 1) / warmup), where warmup = 0 must not divide by zero; max(1, warmup) helps. "
        "`step`: lr_decay to the power of the epoch's number, step // steps_per_epoch. `cosine`: "
        "0.5 * (1 + cos(angle)).",
        "rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup)). If config.schedule == 'step', return rate * "
        "config.lr_decay ** (step // steps_per_epoch). Else the angle goes from 0 to pi: math.pi * step / "
        "(config.epochs * steps_per_epoch).",
    )
    answer = staticmethod(solutions.learning_rate)

    @staticmethod
    def _wrong(attempt, step: int, steps_per_epoch: int, expected: float, why: str, fields: dict) -> str | None:
        config = TrainConfig(**fields)
        about = ", ".join(f"{name}={value:.6g}" if name != "schedule" else value for name, value in fields.items())
        where = f"at step {step} of {config.epochs} epochs of {steps_per_epoch} ({about})"
        try:
            rate = attempt(config, step, steps_per_epoch)
        except ZeroDivisionError:
            return f"{where} it divides by zero."
        if sentence := no_number(rate):
            return sentence
        error = abs(float(rate) - expected) / config.lr
        if error > 1e-6:
            return f"{where} the rate is {float(rate):.6g}, but it should be {expected:.6g}: {why}."
        if error > 1e-9:
            return f"{where} the rate has 6 right digits only: if it is a 32-bit number, use Python's floats."
        return None

    def _cases(self, attempt, steps_per_epoch: int, cases: list[tuple], **fields) -> str | None:
        """A case: the step, what of the settings is special to it, the rate that was worked out by hand, and why."""
        for step, special, expected, why in cases:
            settings = fields | special | {"epochs": 5}
            if sentence := self._wrong(attempt, step, steps_per_epoch, expected, why, settings):
                return sentence
        return None

    def warm_up(self, attempt) -> str | None:
        cases: list[tuple] = [
            (0, {}, 0.5, "the warm-up begins at 1 / warmup, so that the first step already learns"),
            (1, {}, 1.0, "it rises evenly: 1/4, 2/4, 3/4, 1"),
            (3, {}, 2.0, "at step warmup - 1 the full rate is reached"),
            (9, {}, 2.0, "a warm-up that is over multiplies by 1"),
            (0, {"warmup": 0}, 2.0, "without warm-up the first step has the full rate"),
        ]
        return self._cases(attempt, 10, cases, schedule="step", lr=2.0, lr_decay=1.0, warmup=4)

    def by_epochs(self, attempt) -> str | None:
        cases: list[tuple] = [
            (9, {}, 0.5, "the first epoch has the full rate; it falls after each epoch, not at each step"),
            (10, {}, 0.1, "the second epoch has lr_decay times the first one's rate"),
            (35, {}, 0.004, "after three epochs lr_decay has been multiplied in three times"),
        ]
        return self._cases(attempt, 10, cases, schedule="step", lr=0.5, lr_decay=0.2, warmup=0)

    def cosine(self, attempt) -> str | None:
        during = (1 + math.cos(math.pi / 5)) / 2 * 21 / 40
        cases: list[tuple] = [
            (25, {}, (1 + math.sqrt(1 / 2)) / 2, "after a quarter of the run the angle is pi / 4"),
            (50, {}, 1 / 2, "half-way the angle is pi / 2, and its cosine 0"),
            (75, {}, (1 - math.sqrt(1 / 2)) / 2, "the angle is pi at step epochs * steps_per_epoch"),
            (50, {"warmup": 10}, 1 / 2, "the cosine counts from step 0, not from the end of the warm-up"),
            (20, {"warmup": 40}, during, "the cosine falls during the warm-up too"),
        ]
        return self._cases(attempt, 20, cases, schedule="cosine", lr=1.0, warmup=0)

    def like_the_kits(self, attempt) -> str | None:
        for schedule in ("step", "cosine") * 4:
            warmup, epochs, steps_per_epoch = (int(n) for n in torch.randint(1, 40, (3,)))
            lr, lr_decay = (0.1 + 0.9 * torch.rand(2)).tolist()
            fields = {"schedule": schedule, "lr": lr, "lr_decay": lr_decay, "warmup": warmup, "epochs": epochs}
            step = int(torch.randint(epochs * steps_per_epoch, ()))
            expected = kits_rate(TrainConfig(**fields), step, steps_per_epoch)
            if sentence := self._wrong(attempt, step, steps_per_epoch, expected, "as the kit's says", fields):
                return sentence
        return None

    steps = {
        "the warm-up rises evenly to 1 and stays there": warm_up,
        "schedule `step` falls once an epoch": by_epochs,
        "schedule `cosine` falls to 0 at the end of the run": cosine,
        "it is the kit's at any step of any run": like_the_kits,
    }


class UpdateAverage(Piece):
    """The exponential moving average of the weights."""

    kit = "utils.training.update_average"
    hints = (
        "Two lists of the same length, averaged.parameters() and model.parameters(): go through both at once. What "
        "must not happen is that autograd records it, or that `averaged` gets new tensors instead of new values.",
        "Begin with decay = min(decay, (1 + step) / (10 + step)). With torch.no_grad() (as a decorator or in a with) "
        "a parameter takes new values by its methods that end in an underscore, copy_ for instance.",
        "For average, weight in zip(averaged.parameters(), model.parameters()): average.copy_(decay * average + "
        "(1 - decay) * weight), all under torch.no_grad().",
    )
    answer = staticmethod(solutions.update_average)

    @staticmethod
    def _pair() -> tuple[nn.Linear, nn.Linear]:
        averaged, model = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
        for network, value in ((averaged, 1.0), (model, 2.0)):
            for parameter in network.parameters():
                nn.init.constant_(parameter, value)
        return averaged.requires_grad_(False), model

    def in_place(self, attempt) -> str | None:
        averaged, model = self._pair()
        before = list(averaged.parameters())
        attempt(averaged, model, 0.9, 1000)
        if not close(weights(model), torch.tensor([2.0, 2.0]).double()):
            return "the weights of `model` have changed; only those of `averaged` may."
        if any(new is not old for new, old in zip(averaged.parameters(), before, strict=True)):
            return "`averaged` has other tensors as parameters now; give new values to those that it has."
        if close(weights(averaged), torch.tensor([1.0, 1.0]).double()):
            return "nothing has changed in `averaged`; replace the dots with code that gives its parameters new values."
        if any(parameter.grad_fn is not None or parameter.requires_grad for parameter in averaged.parameters()):
            return "the average now remembers how it was computed, and so would every step: use torch.no_grad()."
        return None

    def by_hand(self, attempt) -> str | None:
        cases = [(0.9, 10**9, 0.9), (0.5, 10**9, 0.5), (0.9, 0, 0.1), (0.9, 8, 0.5), (0.3, 8, 0.3)]
        for decay, step, used in cases:
            averaged, model = self._pair()
            attempt(averaged, model, decay, step)
            result, expected = float(averaged.weight), 1.0 * used + 2.0 * (1 - used)
            if close(result, expected, 1e-6):
                continue
            typical = {
                2.0 * used + 1.0 * (1 - used): "decay weighs the old average, not the new weights",
                1.0 * decay + 2.0 * (1 - decay): "early on, the decay is (1 + step) / (10 + step) if that is less",
                1.0 * (1 + step) / (10 + step) + 2.0 * 9 / (10 + step): "`decay` is the most that it may become",
            }
            case = f"an average of 1 and a weight of 2 give {result:.5g} with decay {decay} at step {step}"
            return f"{case}, but it should be {expected:.5g}{reason(typical, result, 1e-6)}."
        return None

    def like_the_kits(self, attempt) -> str | None:
        for decay in (0.0, 0.5, float(torch.rand(())), 0.999):
            model = StandIn(nr_logistic_mix=2 + some(0, 2))
            mine = copy.deepcopy(model).requires_grad_(False)
            kits = copy.deepcopy(mine)
            for step in range(12):
                for parameter in model.parameters():
                    parameter.data = torch.randn_like(parameter)
                attempt(mine, model, decay, step)
                kits_average(kits, model, decay, step)
                for (name, value), expected in zip(mine.named_parameters(), kits.parameters(), strict=True):
                    if sentence := difference(value, expected):
                        return f"decay {decay:.4g}, after step {step}, parameter {name}: {sentence}"
        return None

    steps = {
        "the averaged network gets new values, and no graph": in_place,
        "old and new are weighed rightly, early and late": by_hand,
        "it is the kit's, for every parameter of a network": like_the_kits,
    }


FAULTS: dict[str, str] = {
    "start": "the average is still that of the first weights: call update_average, with `averaged` before `model`",
    "raw": "these are the network's own last weights; return the average, and give it config.ema_decay",
    "early": "the average is updated before the step: it lags by one",
    "restart": "the step that update_average is given begins anew in each epoch; count through the run",
    "ahead": "update_average is given the number of the next step: count after it",
    "no clip": "train_step must be given config.grad_clip",
    "anew": "the optimiser is built anew in each epoch, and begins without its running means; build it once",
}


def faulty(fault: str, model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> nn.Module:
    """`fit` as it goes with one mistake of `FAULTS`."""
    averaged, optimizer = copy.deepcopy(model), training.build_optimizer(model, config)  # type: ignore[arg-type]
    generator, step = torch.Generator().manual_seed(config.seed), 0
    for _ in range(config.epochs):
        if fault == "anew":
            optimizer = training.build_optimizer(model, config)  # type: ignore[arg-type]
        batches = torch.randperm(len(y), generator=generator).split(config.batch_size)
        for i, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = kits_rate(config, step, len(batches)) * group.get("relative_lr", 1.0)
            how = (averaged, model, config.ema_decay, {"restart": i, "ahead": step + 1}.get(fault, step))
            if fault == "early":
                kits_average(*how)
            solutions.train_step(model, x[batch], y[batch], optimizer, config.grad_clip * (fault != "no clip"))
            if fault not in ("early", "start"):
                kits_average(*how)
            step += 1
    return model if fault == "raw" else averaged


@contextlib.contextmanager
def watched_rates(kind: type):
    """While open, collects the rates of every group at each step of the optimisers of this kind."""
    rates: list[list[float]] = []

    def note(optimizer, *_):
        if type(optimizer) is kind:
            rates.append([group["lr"] for group in optimizer.param_groups])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield rates
    finally:
        handle.remove()


class Fit(Piece):
    """The loop."""

    hints = (
        "Before the loop: the copy for the average, the optimiser, the generator, the number of steps in an epoch, a "
        "count of steps that runs through the whole training. Then two loops, one inside the other.",
        "for each epoch: order = torch.randperm(len(labels), generator=generator); for batch in "
        "order.split(config.batch_size): set the rate of every group of optimizer.param_groups, then train_step, then "
        "update_average, then on_step if it is given, then count.",
        "The rate: rate = learning_rate(config, step, steps_per_epoch), and for group in optimizer.param_groups: "
        "group['lr'] = rate * group.get('relative_lr', 1.0). The step: train_step(model, pictures[batch], "
        "labels[batch], optimizer, config.grad_clip), and update_average(averaged, model, config.ema_decay, step).",
    )
    answer = staticmethod(solutions.fit)

    @staticmethod
    def _task(count: int, **fields) -> tuple[StandIn, Tensor, Tensor, TrainConfig]:
        values: dict = {"epochs": 3, "batch_size": 4, "lr": 0.05, "warmup": 3, "schedule": "cosine", "ema_decay": 0.8}
        return StandIn(), random_pictures(count, 4, 4), torch.arange(count) % 3, TrainConfig(**values | fields)

    def network(self, attempt) -> str | None:
        model, x, y, config = self._task(6, epochs=2)
        averaged = attempt(model, x, y, config)
        if sentence := blank(averaged):
            return sentence
        if not isinstance(averaged, nn.Module):
            return f"the averaged network was expected, not {type(averaged).__name__}."
        if averaged is model:
            return "it returns `model` itself; the average is a network of its own, made by copy.deepcopy at the start."
        if averaged.training:
            return "the returned network is in training mode; after copy.deepcopy call .eval() on it."
        if any(weight.requires_grad for weight in averaged.parameters()):
            return "the average's parameters ask for gradients; nothing trains them: .requires_grad_(False)."
        if not model.calls:
            return "the network was never called: is train_step called with `model`?"
        return None

    def batches(self, attempt) -> str | None:
        cases = [(10, 4, 3), (9, 3, 2), (some(9, 29), 4, some(1, 4))]
        for seed, (count, size, epochs) in enumerate(cases, some(0, 98)):
            model, x, y, config = self._task(count, seed=seed, batch_size=size, epochs=epochs)
            attempt(model.eval(), x, y, config)
            seen = [[int((x == picture).flatten(1).all(1).nonzero()[0]) for picture in call[0]] for call in model.calls]
            case = f"{count} pictures in batches of {size}, {epochs} epochs"
            full, rest = [size] * (count // size), [count % size] * (count % size > 0)
            sizes, expected = [len(each) for each in seen], (full + rest) * epochs
            if rest and sizes == full * epochs:
                return f"{case}: the last batch of {rest[0]} is left out; it counts too."
            if sizes != expected:
                return f"{case} are batches of {expected}, but the network saw {sizes}."
            if any(not torch.equal(y[n], labels) for n, (_, labels, _) in zip(seen, model.calls, strict=True)):
                return "pictures come with the labels of others: index both with the same batch."
            if not all(was_training for *_, was_training in model.calls):
                return "`model` was in evaluation mode, in which dropout is off: call model.train() before the loop."
            flat = list(itertools.chain(*seen))
            orders = [flat[i : i + count] for i in range(0, len(flat), count)]
            generator = torch.Generator().manual_seed(seed)
            for epoch, order in enumerate(orders):
                right = torch.randperm(count, generator=generator).tolist()
                if order == right:
                    continue
                why = ": one generator of its own, seeded once, gives torch.randperm(N, generator=...) in each epoch"
                if sorted(order) != sorted(right):
                    why = ": some pictures come twice, others never"
                elif order == sorted(right):
                    why = ": nothing is shuffled"
                elif epoch and order == orders[0]:
                    why = ": it is that of epoch 0 again; make one generator before the loop, and one order an epoch"
                return f"the order of epoch {epoch} is {order[:6]} ..., but it should be {right[:6]} ...{why}."
        return None

    def rates(self, attempt) -> str | None:
        fields: list[dict] = [{}, {"optimizer": "muon", "adam_lr": 0.01}]
        fields.append({"schedule": "step", "lr_decay": 0.5, "optimizer": "muon", "adam_lr": 0.02})
        for more in fields:
            model, x, y, config = self._task(10, epochs=4, **more)
            kind = Muon if config.optimizer == "muon" else torch.optim.Adam
            with watched_rates(kind) as seen:
                attempt(model, x, y, config)
            groups = training.build_optimizer(model, config).param_groups  # type: ignore[arg-type]
            relative = [group.get("relative_lr", 1.0) for group in groups]
            if len(seen) != 12:
                made = f"12 steps of {kind.__name__} were expected, there were {len(seen)}"
                return f"{made}: use build_optimizer(model, config)."
            right = [[kits_rate(config, step, 3) * times for times in relative] for step in range(12)]
            if close(seen, right):
                continue
            if all(rates == seen[0] for rates in seen):
                why = (
                    "count the steps" if close(seen[0], right[0]) else "set group['lr'] of every group before each step"
                )
                return f"the optimiser's rate never changes, it is {seen[0][0]:.4g}: {why}."
            firsts = [rates[0] for rates in right]
            if close([rates[0] for rates in seen], firsts):
                why = "group 0 has the right rate, another group has not: multiply by its relative_lr, where it has one"
            elif close([rates[0] for rates in seen[1:]], firsts[:-1]):
                why = "each step uses the rate of the one before: set it before train_step"
            else:
                why = (
                    "learning_rate takes the step, counted from 0 through the whole run, and the number of steps of an "
                    "epoch, the smaller batch among them"
                )
            step = next(n for n in range(12) if not close(seen[n], right[n]))
            are, should = ([f"{rate:.4g}" for rate in rates[step]] for rates in (seen, right))
            return f"at step {step} the groups' rates are {', '.join(are)}, but should be {', '.join(should)}: {why}."
        return None

    def like_the_kits(self, attempt) -> str | None:
        for fields in ({"grad_clip": 0.2}, {"schedule": "step", "lr_decay": 0.7, "ema_decay": 0.3},
                       {"optimizer": "muon", "adam_lr": 0.02, "batch_size": 3}):  # fmt: skip
            model, x, y, config = self._task(10, seed=some(0, 98), **fields)
            copies = {fault: copy.deepcopy(model) for fault in ["", *FAULTS]}
            mine, right = attempt(model, x, y, config), solutions.fit(copies[""], x, y, config)
            if sentence := difference(weights(mine), weights(right)):
                for fault, why in FAULTS.items():
                    if close(weights(mine), weights(faulty(fault, copies[fault], x, y, config))):
                        return f"the averaged weights are not what they should be: {why}."
                return f"the averaged weights, {config.epochs} epochs with {fields}: {sentence}"
        return None

    def reports(self, attempt) -> str | None:
        model, x, y, config = self._task(7)
        lines: list[tuple] = []
        expected: list[Tensor] = []
        then: list[Tensor] = []  # the averaged weights as on_step sees them

        def on_step(*given):
            lines.append(given)
            then.extend(weights(each) for each in given if isinstance(each, nn.Module))

        solutions.fit(copy.deepcopy(model), x, y, config, lambda step, bits, averaged: expected.append(bits))
        averaged = attempt(model, x, y, config, on_step)
        steps = [line[0] for line in lines]
        if steps != list(range(6)):
            return f"6 steps call on_step with 0, 1, 2, 3, 4, 5 as their number, but it heard of {steps}."
        if any(len(line) != 3 for line in lines):
            return f"on_step(step, bits, averaged) takes three things, but it was given {len(lines[0])}."
        if any(line[2] is not averaged for line in lines):
            return "on_step must be given the averaged network, the one that is returned."
        for step, bits in enumerate(expected):
            told = lines[step][1]
            if not isinstance(told, Tensor) or no_number(told):
                return f"on_step is given a {type(told).__name__} as bits; hand on the tensor that train_step returned."
            if not close(float(told), float(bits), 1e-6):
                return f"at step {step} on_step is given {told:.6g} as bits; train_step returned {bits:.6g}."
        if not close(then[-1], weights(averaged)):
            return "the average still changes after the last on_step: call on_step after update_average."
        return None

    steps = {
        "it returns a network of its own, ready for use": network,
        "every epoch has all pictures, in a new order that the seed fixes": batches,
        "every group has its learning rate at every step": rates,
        "the averaged weights are what they should be": like_the_kits,
        "on_step hears of every step": reports,
    }


number_of_steps, mean_of_batches = NumberOfSteps(), MeanOfBatches()
train_step, learning_rate, update_average, fit = TrainStep(), LearningRate(), UpdateAverage(), Fit()
