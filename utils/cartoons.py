"""The embedded data sets: burgers, pandas, koalas and pizzas, drawn from a seed, and the same under bad conditions.

Every picture is a few shapes given by signed distances (negative inside), painted one over the other; a pixel's
cover is its distance to the edge in pixels, which makes edges smooth. All pictures of a class are drawn at once:
coordinates are (N, S, S) arrays, and N different poses, sizes, colours and lights come from arrays of N numbers.

A fine grain lies over everything, as on paper. It costs about 4 bits per dimension that nobody can predict, and it is
what makes the data quick to learn: without it a model spends its first epochs on telling flat colours to a fraction
of a level, where the likelihood then has most to gain, and only later on shapes.
"""

import numpy as np

CLASSES = ("burger", "panda", "koala", "pizza")
SPLITS = {"train": 4000, "validation": 500, "test": 500}


def draw(split: str, image_size: int = 32, seed: int = 0, hard: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (N, 3, S, S) uint8 and labels (N,) int64 of a split, classes in turn: 0, 1, 2, 3, 0, ...

    `hard` ones may be small, odd-coloured, blurred, half-covered, dark, or several of these.
    """
    count, canvas = SPLITS[split], HardCanvas if hard else Canvas
    labels = np.arange(count) % len(CLASSES)
    images = np.empty((count, 3, image_size, image_size), np.uint8)
    for label, painter in enumerate((burger, panda, koala, pizza)):
        where = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, list(SPLITS).index(split), label] + [1] * hard)
        images[where] = painter(canvas(rng, len(where), image_size))
    return images, labels


class Canvas:
    """N pictures that are painted together, each seen from its own pose and in its own light."""

    def __init__(self, rng: np.random.Generator, count: int, image_size: int):
        self.rng, self.count = rng, count
        centres = (np.arange(image_size) + 0.5) * 2 / image_size - 1
        self.row, self.column = np.meshgrid(centres, centres, indexing="ij")
        self.pixel = 2 / image_size
        wall = self.background()
        floor = 0.86 * wall
        horizon = self.uniform(0.3, 0.8)
        below = np.clip(0.5 + (self.row - horizon) / self.pixel, 0, 1)[:, None]  # (N, 1, S, S)
        self.rgb = wall[:, :, None, None] * (1 - below) + floor[:, :, None, None] * below  # (N, 3, S, S)

    def uniform(self, low: float, high: float) -> np.ndarray:
        return self.rng.uniform(low, high, (self.count, 1, 1))

    def background(self) -> np.ndarray:
        """Pale colours of any hue, (N, 3)."""
        return 1 - 0.35 * self.rng.uniform(0, 1, (self.count, 3)) * self.rng.uniform(0.3, 1, (self.count, 1))

    def colour(self, red: int, green: int, blue: int, jitter: float = 0.04) -> np.ndarray:
        """Shades around one colour, (N, 3): a common lightness and a little of each channel's own."""
        base = np.array([red, green, blue]) / 255
        light = self.rng.uniform(1 - 1.5 * jitter, 1 + 1.5 * jitter, (self.count, 1))
        return np.clip(base * light + self.rng.uniform(-jitter, jitter, (self.count, 3)) / 2, 0, 1)

    def pose(self, turn: float) -> None:
        """Sets x to the right and y downwards, (N, S, S), in the object's own coordinates."""
        angle, (size, aside) = self.uniform(-turn, turn), self.framing()
        dx, dy = self.column - self.uniform(-aside, aside), self.row - self.uniform(-aside, aside)
        self.x = (np.cos(angle) * dx + np.sin(angle) * dy) / size
        self.y = (np.cos(angle) * dy - np.sin(angle) * dx) / size
        self.edge = self.pixel / size
        lamp = self.uniform(-1, 1)  # where the light comes from: upper left to upper right
        self.into_shadow = np.cos(lamp) * self.y + np.sin(lamp) * self.x

    def framing(self) -> tuple:
        """The object's size, and how far it may be from the middle."""
        return self.uniform(0.86, 1.0), 0.07

    def ellipse(self, cx, cy, rx, ry, angle=0.0) -> np.ndarray:
        x, y = self.x - cx, self.y - cy
        x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        return (np.hypot(x / rx, y / ry) - 1) * np.minimum(rx, ry)

    def box(self, cx, cy, half_width, half_height, corner) -> np.ndarray:
        dx = np.abs(self.x - cx) - half_width + corner
        dy = np.abs(self.y - cy) - half_height + corner
        return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner

    def paint(self, distance: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        cover = opacity * np.clip(0.5 - distance / self.edge, 0, 1)[:, None]  # (N, 1, S, S)
        self.rgb += cover * (colour[:, :, None, None] - self.rgb)

    def shade(self, distance: np.ndarray, strength: float) -> None:
        """The side of a shape that is turned from the light is darker, from one edge on."""
        cover = np.clip(0.5 - np.maximum(distance, 0.25 - self.into_shadow) / self.edge, 0, 1)[:, None]
        self.rgb *= 1 - strength * cover

    def develop(self) -> np.ndarray:
        """Every picture in a light of its own, dim or bright, cold or warm, and with grain; -> uint8 (N, 3, S, S)."""
        brightness, warmth = self.uniform(0.86, 1.0), self.uniform(-0.03, 0.03)
        tint = np.concatenate([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=1)[..., None]  # (N, 3, 1, 1)
        grain = self.rng.normal(0, 4 / 255, self.rgb.shape)
        return np.rint(255 * np.clip(self.rgb * brightness[:, None] * tint + grain, 0, 1)).astype(np.uint8)


class HardCanvas(Canvas):
    """Each picture has each of five troubles with probability 1/2."""

    def where(self, trouble: np.ndarray, none: float | np.ndarray) -> np.ndarray:
        return np.where(self.rng.random((self.count, 1, 1)) < 0.5, trouble, none)

    def framing(self) -> tuple:
        size = self.where(self.uniform(0.3, 0.8), 0.93)
        return size, 1.07 - size  # it stays inside

    def develop(self) -> np.ndarray:
        turn = self.where(self.uniform(-np.pi, np.pi), 0)[..., None]  # of all hues, about the grey axis: (N, 1, 1, 1)
        grey = self.rgb.mean(axis=1, keepdims=True)
        across = (np.roll(self.rgb, 1, axis=1) - np.roll(self.rgb, -1, axis=1)) / np.sqrt(3)
        self.rgb = np.clip(grey + np.cos(turn) * (self.rgb - grey) + np.sin(turn) * across, 0, 1)

        width = self.where(self.uniform(0.07, 0.18), 1e-3)  # of a Gaussian blur, in halves of the picture
        centres = self.column[0]
        blur = np.exp(-(((centres[:, None] - centres) / width) ** 2) / 2)  # (N, S, S)
        blur = (blur / blur.sum(axis=2, keepdims=True))[:, None]
        self.rgb = blur @ self.rgb @ blur.swapaxes(2, 3)

        side, edge = self.uniform(-np.pi, np.pi), self.where(self.uniform(-0.05, 0.55), 9)  # a card over one side
        card = np.clip(0.5 + (np.cos(side) * self.column + np.sin(side) * self.row - edge) / self.pixel, 0, 1)[:, None]
        self.rgb += card * (self.rng.uniform(0, 1, (self.count, 3, 1, 1)) - self.rgb)

        self.rgb *= self.where(self.uniform(0.06, 0.7), 1)[..., None]
        return super().develop()


def burger(c: Canvas) -> np.ndarray:
    c.pose(turn=0.12)
    bun, wide = c.colour(222, 152, 72), c.uniform(0.70, 0.82)
    bottom = c.box(0, 0.50, wide, 0.19, 0.16)
    c.paint(bottom, bun)
    c.shade(bottom, 0.25)
    c.paint(c.box(0, 0.27, wide + 0.04, 0.12, 0.10), c.colour(104, 58, 34))
    c.paint(c.box(0, 0.12, wide + 0.01, 0.055, 0.03), c.colour(250, 196, 52))
    tip = c.uniform(-0.4, 0.4)
    c.paint(np.maximum(0.10 - c.y, (np.abs(c.x - tip) + (c.y - 0.34)) * 0.7), c.colour(250, 196, 52))
    c.paint(c.box(0, 0.02, wide - 0.02, 0.07, 0.05), c.colour(206, 52, 42))
    wave = 0.035 * np.sin(c.x * c.uniform(13, 16) + c.uniform(0, 6.3))
    c.paint(np.maximum(np.abs(c.y + 0.08 - wave) - 0.075, np.abs(c.x) - wide - 0.07), c.colour(112, 176, 60))
    top = np.maximum(c.ellipse(0, -0.12, wide, c.uniform(0.50, 0.64)), c.y + 0.12)
    c.paint(top, bun)
    c.shade(top, 0.18)
    seed = c.colour(252, 236, 196, 0.02)
    for x, y in ((-0.42, -0.32), (-0.15, -0.42), (0.16, -0.34), (0.42, -0.30), (0.02, -0.56)):
        c.paint(c.ellipse(x + c.uniform(-0.05, 0.05), y + c.uniform(-0.03, 0.03), 0.065, 0.04, c.uniform(-1, 1)), seed)
    return c.develop()


def panda(c: Canvas) -> np.ndarray:
    c.pose(turn=0.15)
    black, white = c.colour(34, 32, 36, 0.06), c.colour(244, 242, 238, 0.03)
    wide = c.uniform(0.72, 0.82)
    for side in (-1, 1):
        c.paint(c.ellipse(side * 0.60, -0.56, 0.25, 0.25), black)
    face = c.ellipse(0, 0.06, wide, c.uniform(0.64, 0.72))
    c.paint(face, white)
    c.shade(face, 0.10)
    tilt, look_x, look_y = c.uniform(0.4, 0.8), c.uniform(-0.05, 0.05), c.uniform(-0.04, 0.04)
    for side in (-1, 1):
        c.paint(c.ellipse(side * 0.33, 0.0, 0.17, 0.24, side * tilt), black)
        c.paint(c.ellipse(side * 0.30 + look_x, -0.02 + look_y, 0.065, 0.07), white)
    c.paint(c.ellipse(0, 0.30, 0.12, 0.08), black)
    smile = np.maximum(np.abs(np.hypot(c.x, c.y - 0.34) - 0.16) - 0.025, 0.42 - c.y)
    c.paint(smile, black)
    return c.develop()


def koala(c: Canvas) -> np.ndarray:
    c.pose(turn=0.15)
    fur, dark, inner = c.colour(140, 144, 156), c.colour(44, 40, 46), c.colour(226, 180, 186)
    size = c.uniform(0.31, 0.38)
    for side in (-1, 1):
        c.paint(c.ellipse(side * 0.64, -0.34, size, size), fur)
        c.paint(c.ellipse(side * 0.66, -0.31, size * 0.58, size * 0.58), inner)
    face = c.ellipse(0, 0.10, c.uniform(0.60, 0.68), c.uniform(0.58, 0.66))
    c.paint(face, fur * 1.08)
    c.shade(face, 0.18)
    c.paint(c.ellipse(0, 0.54, 0.34, 0.18), np.minimum(fur * 1.32, 1), 0.8)
    look = c.uniform(-0.03, 0.03)
    for side in (-1, 1):
        c.paint(c.ellipse(side * 0.32, -0.04, 0.085, 0.095), dark)
        c.paint(c.ellipse(side * 0.32 + 0.03 + look, -0.075, 0.03, 0.03), np.ones((c.count, 3)))
    c.paint(c.ellipse(0, 0.18, c.uniform(0.13, 0.16), c.uniform(0.22, 0.27)), dark)
    return c.develop()


def pizza(c: Canvas) -> np.ndarray:
    c.pose(turn=np.pi)
    radius = np.hypot(c.x, c.y)
    rim = c.uniform(0.80, 0.88)
    angle = np.arctan2(c.y, c.x)
    missing = c.rng.random((c.count, 1, 1)) < 0.5  # half of them lack a slice
    slice_ = np.where(missing, radius * np.sin(np.clip(np.pi / 6 - np.abs(angle), -1.5, 1.5)), -1.0)
    crust = np.maximum(radius - rim, slice_)
    cheese = np.maximum(radius - rim + c.uniform(0.11, 0.16), slice_)
    c.paint(crust, c.colour(206, 142, 70))
    c.paint(cheese, c.colour(248, 206, 92))
    salami, herb = c.colour(196, 48, 38), c.colour(70, 132, 52)
    first = c.uniform(0.6, 0.8)
    for i in range(6):
        turn, reach = first + i * 2 * np.pi / 6 + c.uniform(-0.15, 0.15), c.uniform(0.42, 0.52)
        cx, cy = reach * np.cos(turn), reach * np.sin(turn)
        c.paint(np.maximum(c.ellipse(cx, cy, 0.15, 0.15), slice_ + 0.02), salami)
    for i in range(7):
        turn, reach = c.uniform(0, 2 * np.pi), c.uniform(0.1, 0.62)
        cx, cy = reach * np.cos(turn), reach * np.sin(turn)
        c.paint(np.maximum(c.ellipse(cx, cy, 0.075, 0.04, turn + i), slice_ + 0.02), herb)
    return c.develop()
