"""The exercises of notebook 03."""

import torch
from common import check_exercise

from kit.exercises import conditioning as exercises


def test_gate():
    def swapped(c):
        b, a = c.chunk(2, dim=1)
        return a * torch.sigmoid(b)

    def even_and_odd(c):
        return c[:, ::2] * torch.sigmoid(c[:, 1::2])

    def in_place(c):
        a, b = c.chunk(2, dim=1)
        return a.mul_(b.sigmoid_())

    def no_split(c):
        return c * torch.sigmoid(c)

    def of_tanh(c):
        a, b = c.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    wrong = {
        "halves are swapped": swapped,
        "even and odd": even_and_odd,
        "c itself was changed": in_place,
        "the shape is (2, 6, 4, 5)": no_split,
        "tanh": of_tanh,
        "the sigmoid is missing": lambda c: c[:, :3] * c[:, 3:],
        "was expected, not": lambda c: c[:, :3] + torch.sigmoid(c[:, 3:]),
    }
    check_exercise(exercises.gate, lambda c: None, wrong)


def test_film():
    def spread(values):
        return values[:, :, None, None]

    wrong = {
        "1 + scale": lambda c, scale, shift: c * spread(scale) + spread(shift),
        "the scale has no effect": lambda c, scale, shift: c + spread(shift),
        "the shift has no effect": lambda c, scale, shift: c * (1 + spread(scale)),
        "the shift was scaled too": lambda c, scale, shift: (c + spread(shift)) * (1 + spread(scale)),
        "changed places": lambda c, scale, shift: c * (1 + spread(shift)) + spread(scale),
        "picture 1, channel 0 differs": lambda c, scale, shift: c * (1 + spread(scale[:1])) + spread(shift[:1]),
        "it stopped with RuntimeError": lambda c, scale, shift: c * (1 + scale) + shift,
    }
    check_exercise(exercises.film, lambda c, scale, shift: None, wrong)


def test_site_parameters():
    right = exercises.site_parameters.answer

    def one_row(site, config):
        return right(site, config) // config.num_classes

    def one_stream(site, config):
        return right(site, config) // (2 if site in ("upstream", "middle") else 1)

    def no_scale(site, config):
        return right("blocks" if site == "film" else site, config)

    def even_stages(site, config):  # forgets the pair that the finer stages have more
        count = right(site, config)
        return count * 12 // 16 if site in ("blocks", "film") and config.nr_resnet == 1 else count

    wrong = {
        "the row of one class": one_row,
        "Count both streams": one_stream,
        "a scale and a shift": no_scale,
        "there are 16 gated blocks": even_stages,
        "site 'late'": lambda site, config: 3 * 4 if site == "late" else right(site, config),
    }
    check_exercise(exercises.site_parameters, lambda site, config: None, wrong)


def test_relabel_late():
    def add_only(params, table, old, new):
        return params + table[new][:, :, None, None]

    def reversed_sign(params, table, old, new):
        return params + (table[old] - table[new])[:, :, None, None]

    def first_for_all(params, table, old, new):
        return params + (table[new[0]] - table[old[0]])[None, :, None, None]

    wrong = {
        "old labels are still in there": add_only,
        "the sign is wrong": reversed_sign,
        "differs from what the network says": first_for_all,
        "still those of the old labels": lambda params, table, old, new: params,
    }
    check_exercise(exercises.relabel_late, lambda params, table, old, new: None, wrong)


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for exercise in (exercises.gate, exercises.film, exercises.site_parameters, exercises.relabel_late):
        exercise.check(exercise.answer)
    assert torch.equal(before, torch.get_rng_state())
