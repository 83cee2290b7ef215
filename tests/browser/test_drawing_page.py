"""`make test-browser`: the page on which a model draws, in a headless Chromium: equal to Python, moved by keys, broken.

The page is opened from its file, under its own content security policy, which forbids `eval`: so conditions are asked
for again and again, not handed to the page. Screenshots go to `shots/`.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_pictures, small_model, wait_for
from PIL import Image
from playwright.sync_api import Page

from kit.__main__ import main
from utils import mixture
from utils.checkpoints import load_model, save_model
from utils.classify import class_log_likelihoods, evidence_map
from utils.sampling import stepwise_params

SHOTS = Path(__file__).parent / "shots"
PATIENCE = 120  # s; on a busy machine too
STRANGE = ("<img src=x onerror=alert(1)>", "&amp;", "שלום", "a rather long name of a class, as people have them", "e")
BYTES = "n => Array.from(pictures[n].bytes)"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """The shipped weights, and those of a small network with every site of the class and sizes that divide nothing."""
    home = tmp_path_factory.mktemp("models")
    sizes = {"nr_resnet": 2, "nr_filters": 7, "nr_logistic_mix": 3, "image_size": 16}
    small = small_model(num_classes=5, fusion="all", **sizes)
    small.class_names = STRANGE
    save_model(small, home / "small.safetensors", torch.float16)
    paths = {"cartoons": home / "cartoons.html", "small": home / "small.html"}
    for name, checkpoint in (("cartoons", "cartoons"), ("small", home / "small.safetensors")):
        assert main(["page", "--checkpoint", str(checkpoint), "--out", str(paths[name])]) == 0
    return paths


@pytest.fixture
def open_page(models, chromium):
    """Opens a page in a new profile. An error of a script fails the test, and so does a request for anything else."""
    contexts, faults = [], []

    def opened(name: str = "cartoons", script: str = "", address: str = "", **context) -> Page:
        contexts.append(chromium.new_context(**context))
        page = contexts[-1].new_page()
        address = address or models[name].as_uri()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda r: None if r.url.startswith((address, "blob:", "data:")) else faults.append(r.url))
        if script:
            page.add_init_script(script)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def wait(page: Page, condition: str) -> None:
    wait_for(lambda: page.evaluate(condition), PATIENCE)


def drawn(page: Page) -> list[list[int]]:
    """The pictures' bytes, once all are drawn."""
    wait(page, "Boolean(request) && request.missing === 0")
    return [page.evaluate(BYTES, n) for n in range(page.evaluate("pictures.length"))]


def pixels(images: torch.Tensor) -> list[list[int]]:
    """(N, 3, S, S) in [-1, 1] as the page holds them: bytes (S, S, 3)."""
    return [((image + 1) * 127.5).round().int().permute(1, 2, 0).flatten().tolist() for image in images]


def checkpoint(models: dict[str, Path], name: str) -> str:
    return "cartoons" if name == "cartoons" else str(models["small"].with_suffix(".safetensors"))


@pytest.mark.parametrize("name, label, row, column", [("cartoons", 2, 20, 13), ("small", 1, 9, 5), ("small", 4, 0, 3)])
def test_every_parameter_and_gradient_equals_pythons(models, open_page, capsys, name, label, row, column):
    model, page = load_model(checkpoint(models, name)), open_page(name)
    size = model.config.image_size
    x, y = random_pictures(1, size), torch.tensor([label])
    found = page.evaluate(
        """([label, bytes]) => {
          const network = new CachedNetwork(model, label), params = [];
          for (let i = 0; i < size; i++) {
            network.startRow(i);
            for (let j = 0; j < size; j++) {
              params.push(...network.params(j));
              network.put(j, bytes.slice(3 * (i * size + j), 3 * (i * size + j) + 3).map(fromByte));
            }
          }
          return params;
        }""",
        [label, pixels(x)[0]],
    )
    params = torch.tensor(found, dtype=torch.float64).view(size, size, -1).permute(2, 0, 1)[None]
    single, double = stepwise_params(model, x.float(), y), stepwise_params(model.double(), x, y)
    distances = [float((params - other).abs().max()) for other in (single, double)]
    assert params.shape == single.shape and distances[0] < 1e-3 and distances[1] < 1e-10

    picture = x.clone().requires_grad_()
    at_pixel = mixture.unpack(model(picture, y)[:, :, row : row + 1, column : column + 1])
    means = mixture.coupled_means(at_pixel, picture.detach()[:, :, None, row : row + 1, column : column + 1])
    brightness = (at_pixel.logits.softmax(dim=1) * means.mean(dim=1)).sum()
    (gradient,) = torch.autograd.grad(brightness, picture)
    answer = page.evaluate(
        """([label, bytes, row, column]) => {
          const {params, seen} = lookBack(model, label, Uint8Array.from(bytes), row, column);
          return [[...params], [...seen]];
        }""",
        [label, pixels(x)[0], row, column],
    )
    seen = torch.tensor(answer[1], dtype=torch.float64).view(size, size)
    assert float((torch.tensor(answer[0], dtype=torch.float64) - double[0, :, row, column]).abs().max()) < 1e-10
    slopes = gradient[0].abs().sum(dim=0)
    assert (slopes > 0).sum() > 5 or row == 0
    assert float((seen - slopes).abs().max()) < 1e-10
    with capsys.disabled():
        print(f"\n{name}: parameters differ by at most {distances[0]:.1e} in float32, {distances[1]:.1e} in float64")


def test_masses_and_log_probabilities_equal_pythons(open_page):
    page, generator = open_page("small"), torch.Generator().manual_seed(2)
    params = torch.randn(1, 40, 1, 8, generator=generator, dtype=torch.float64)
    params[0, 4:, 0, 1] *= 12  # scales far below a bin and far above the range, coefficients at their ends
    colours = torch.tensor([[0, 255, 17, 128, 255, 0, 3, 200], [255, 0, 1, 2, 128, 0, 255, 254], [9] * 8])
    x = (colours.double() / 127.5 - 1)[None, :, None]
    asked = [[params[0, :, 0, n].tolist(), colours[:, n].tolist()] for n in range(8)]
    nats = page.evaluate("asked => asked.map(([params, bytes]) => logProb(Float64Array.from(params), bytes))", asked)
    expected = mixture.log_prob(params, x, reduce=False)[0, 0]
    assert float((torch.tensor(nats, dtype=torch.float64) - expected).abs().max()) < 1e-9
    expectations = """([params, bytes, colour]) =>
        expectations(Float64Array.from(params), bytes, colour).map(component => [...component.masses])"""

    def joint(n: int, tried: torch.Tensor) -> torch.Tensor:
        """log p of the colours (3, N) at place n. -> (N,)"""
        of_all = params[:, :, :, n : n + 1].expand(-1, -1, 1, tried.shape[1])
        return mixture.log_prob(of_all, (tried.double() / 127.5 - 1)[None, :, None], reduce=False)[0, 0]

    values = torch.arange(256)
    for n in (0, 1, 2, 4):
        green_and_blue = torch.cartesian_prod(values, values).T
        of_green = joint(n, torch.cat([colours[:1, n, None].expand(1, 256 * 256), green_and_blue])).view(256, 256)
        of_blue = joint(n, torch.stack([colours[0, n].expand(256), colours[1, n].expand(256), values]))
        red = torch.tensor(page.evaluate(expectations, [*asked[n], 0]), dtype=torch.float64).sum(dim=0)
        green = torch.tensor(page.evaluate(expectations, [*asked[n], 1]), dtype=torch.float64).sum(dim=0)
        blue = torch.tensor(page.evaluate(expectations, [*asked[n], 2]), dtype=torch.float64).sum(dim=0)
        # p(red) is what is left over all greens and blues; the others are shares of such sums
        assert abs(float(red[colours[0, n]].log() - of_green.logsumexp(dim=(0, 1)))) < 1e-9
        assert float((green - of_green.logsumexp(dim=1).softmax(dim=0)).abs().max()) < 1e-9
        assert float((blue - of_blue.softmax(dim=0)).abs().max()) < 1e-9
        assert abs(float(red.sum()) - 1) < 1e-9


@pytest.mark.parametrize(
    "name, label, seed, temperature, count",
    [("cartoons", 1, 0, 1.0, 4), ("cartoons", 3, 2**40 + 1, 0.85, 1), ("small", 2, 7, 1.5, 9), ("small", 0, 3, 0.0, 2)],
)
def test_whole_pictures_equal_pythons(models, open_page, tmp_path, name, label, seed, temperature, count):
    page = open_page(name)
    for control, value in (("seed", seed), ("count", count), ("class", label), ("temperature", temperature)):
        page.locator(f"#{control}").fill(str(value))
    found = drawn(page)
    command = ["generate", "--checkpoint", checkpoint(models, name), "--for-page", "--classes", str(label)]
    command += ["--per-class", str(count), "--seed", str(seed), "--temperature", str(temperature)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    expected = [np.array(Image.open(file)).flatten().tolist() for file in sorted((tmp_path / "out").glob("Class*.png"))]
    assert found == expected


def test_a_picture_begun_with_its_own_upper_half_is_the_same(open_page):
    page = open_page()
    first = drawn(page)
    page.get_by_role("button", name="Copy the picture's upper half").click()
    assert page.get_by_label("Start from this upper half").is_checked()
    half = len(first[0]) // 2
    begun = drawn(page)
    assert begun[0] == first[0], "the random numbers of the lower half are the same"
    assert all(picture[:half] == first[0][:half] for picture in begun) and begun[1] != begun[2]
    page.get_by_label("Start from this upper half").click()
    assert drawn(page) == first


def test_judging_equals_python(open_page):
    page, model = open_page(), load_model("cartoons")
    (bytes_,) = drawn(page)[:1]
    page.get_by_role("button", name="Classify picture 1").click()
    wait(page, "!document.getElementById('judgement').hidden")
    x = torch.tensor(bytes_).view(32, 32, 3).permute(2, 0, 1)[None] / 127.5 - 1
    nats = class_log_likelihoods(model, x)[0]
    found = torch.tensor(page.evaluate("verdict.nats.map(sum)"))
    assert float((found - nats).abs().max()) < 0.05  # of ten thousand nats
    order = nats.argsort(descending=True).tolist()
    rows = page.locator("#posterior th").all_inner_texts()
    assert rows == [model.class_names[label] for label in order]
    evidence = evidence_map(model, x[0], order[0], order[1])
    shown = page.evaluate("([a, b]) => [...verdict.nats[a].map((v, n) => v - verdict.nats[b][n])]", order[:2])
    assert float((torch.tensor(shown).view(32, 32) - evidence).abs().max()) < 1e-3
    before = fingerprint(page, "#evidence")
    page.locator("#against").focus()
    page.keyboard.press("End")
    assert fingerprint(page, "#evidence") != before
    assert re.search(r"In all \+[\d.]+ nats", page.locator("#evidence-caption").inner_text())


def fingerprint(page: Page, canvases: str) -> list[str]:
    return page.locator(canvases).evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def pressed(page: Page, control: str, key: str) -> list[list[int]]:
    page.locator(f"#{control}").focus()
    page.keyboard.press(key)
    return drawn(page)


def test_every_control_by_keyboard(open_page):
    page = open_page()
    first = drawn(page)
    for control, there, back in (
        ("class", "ArrowRight", "ArrowLeft"),
        ("temperature", "ArrowLeft", "ArrowRight"),
        ("count", "ArrowRight", "ArrowLeft"),
        ("seed", "ArrowUp", "ArrowDown"),
    ):
        moved = pressed(page, control, there)
        assert moved != first, control
        assert pressed(page, control, back) == first, control
    assert pressed(page, "next-seed", "Enter") != first and pressed(page, "seed", "ArrowDown") == first
    bars = [fingerprint(page, "#bars canvas"), fingerprint(page, "#seen")]
    for control in ("row", "column", "picture"):
        page.locator(f"#{control}").focus()
        page.keyboard.press("ArrowUp")
        wait(page, "lookJob === shownLook")
        now = [fingerprint(page, "#bars canvas"), fingerprint(page, "#seen")]
        assert now[0] != bars[0] and now[1] != bars[1], control
        bars = now
    page.locator("#easel").focus()
    before = fingerprint(page, "#easel")
    for key in ("ArrowDown", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert (
        fingerprint(page, "#easel") != before
        and "row 2, column 2, painted" in page.locator("#easel-place").inner_text()
    )
    painted = drawn(page)
    assert painted != first and page.locator("#begin").is_checked()
    page.locator("#swatches button").nth(5).focus()
    page.keyboard.press("Enter")
    assert page.locator("#colour").input_value() == "#c83228"
    page.locator("#brush").focus()
    page.keyboard.press("ArrowUp")
    page.locator("#easel").focus()
    page.keyboard.press("Space")
    assert drawn(page) != painted
    pressed(page, "clear", "Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not page.locator("#begin").is_checked() and drawn(page) == first
    page.locator("#judge").focus()
    page.keyboard.press("Enter")
    wait(page, "!document.getElementById('judgement').hidden")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#components tr").count() == 5 and page.locator("#components").is_visible()
    with page.expect_download() as download:
        page.locator("#save").focus()
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "burger-seed-0.png"
    sheet = np.array(Image.open(download.value.path()).convert("RGB"))
    assert sheet.shape == (2 * 264 + 8, 2 * 264 + 8, 3)
    tile = sheet[8 + 264 : 8 + 264 + 256 : 8, 8 : 8 + 256 : 8]  # the third picture
    assert tile.flatten().tolist() == drawn(page)[2]


def test_tab_reaches_every_control(open_page):
    page = open_page()
    drawn(page)
    page.get_by_role("button", name="Classify picture 1").click()
    wait(page, "!document.getElementById('judgement').hidden")
    page.evaluate("document.activeElement.blur()")
    controls = page.locator("input, button, select, summary, #easel")
    reached = set()
    for _ in range(2 * controls.count()):
        page.keyboard.press("Tab")
        reached.add(controls.evaluate_all("controls => controls.indexOf(document.activeElement)"))
    assert reached - {-1} == set(range(controls.count()))
    unnamed = controls.evaluate_all(
        "all => all.filter(c => !(c.labels?.length || c.ariaLabel || c.title || c.textContent.trim()))"
        ".map(c => c.outerHTML)"
    )
    assert unnamed == []


def test_a_new_setting_interrupts_at_once(open_page):
    page = open_page()
    drawn(page)
    page.locator("#count").fill("9")
    drawn(page)
    undisturbed = page.evaluate("request.took")
    page.locator("#class").fill("1")
    page.locator("#class").fill("0")
    wait(page, "request.missing < 9 * 32 - 2")
    assert page.evaluate("request.missing") > 0
    page.locator("#seed").fill("")  # no number: the last seed stays, and a sentence says so
    assert page.locator("#seed-wrong").inner_text() == "Seed: a whole number from 0 to 9007199254740991."
    assert page.evaluate("request.seed") == 0
    for seed in range(60):
        page.locator("#seed").fill(str(seed))
    page.locator("#seed").fill("5")
    assert page.locator("#seed-wrong").inner_text() == ""
    nine = drawn(page)
    assert page.evaluate("request.took") < 5 * undisturbed, "the sixty before have not been drawn to their end"
    page.locator("#count").fill("1")
    one = drawn(page)
    fresh = open_page()
    fresh.locator("#seed").fill("5")
    fresh.locator("#count").fill("1")
    assert drawn(fresh) == one == nine[:1]


def test_mouse_and_touch(open_page):
    page = open_page(viewport={"width": 390, "height": 800}, has_touch=True)
    first = drawn(page)
    canvas = page.locator("#pictures canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 7.5 / 32, box["y"] + box["height"] * 30.5 / 32)
    assert [page.locator(f"#{name}").input_value() for name in ("picture", "row", "column")] == ["2", "31", "8"]
    wait(page, "lookJob === shownLook")
    assert "Picture 2, row 31, column 8: what it looked at." in page.locator("#seen-caption").inner_text()
    easel = page.locator("#easel")
    easel.scroll_into_view_if_needed()
    box = easel.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 3 * box["height"] / 4)  # not the half to paint
    assert not page.locator("#begin").is_checked()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    assert drawn(page) != first and page.evaluate("easel.bytes[3 * (8 * 32 + 16)]") == 0
    shown = "[...$('easel').getContext('2d').getImageData(0, 16, 32, 16).data].filter((_, n) => n % 4 !== 3)"
    assert page.evaluate(shown) == drawn(page)[0][3 * 16 * 32 :], "how it goes on stands below what was painted"
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 3, steps=2)
    page.mouse.up()
    assert page.evaluate("[...Array(32).keys()].every(column => easel.bytes[3 * column] === 0)"), "a line without gaps"
    drawn(page)


def test_a_fault_in_a_worker_is_said(models, chromium):
    page = chromium.new_page()
    page.add_init_script(
        """const Made = Blob, fault = "function samplePixel() { throw Error('no'); } function unused(";
        window.Blob = function ([source], kind) {
          return new Made([source.replace("function samplePixel(", fault)], kind);
        };"""
    )
    page.goto(models["small"].as_uri())
    page.get_by_role("alert").wait_for()
    assert re.fullmatch(r"Drawing failed in this browser \(.*no.*\)\.", page.get_by_role("alert").inner_text())
    page.close()


def test_numbers_out_of_range_are_said(open_page):
    page = open_page()
    drawn(page)
    page.locator("#row").fill("33")
    assert page.locator("#place-wrong").inner_text() == "Row: a whole number from 1 to 32."
    judge = page.get_by_role("button", name="Classify picture 1")
    assert (
        judge.get_attribute("aria-disabled") == "true" and page.locator("#row").get_attribute("aria-invalid") == "true"
    )
    judge.click(force=True)
    assert not page.locator("#judgement").is_visible()
    page.locator("#row").fill("32")
    assert page.locator("#place-wrong").inner_text() == "" and judge.get_attribute("aria-disabled") == "false"
    judge.click()
    page.locator("#picture").fill("3")
    wait(page, "!document.getElementById('judgement').hidden")
    assert page.locator("#judge-status").inner_text() == "Picture 1 is taken for class burger."
    page.locator("#brush").fill("99")
    page.locator("#easel").click(position={"x": 5, "y": 5})
    assert page.locator("#brush-wrong").inner_text() == "Brush: a whole number from 1 to 8."


def damaged(text: str, how: str) -> str:
    start = text.index(">", text.index('<script id="weights"')) + 1
    place = start + 100_000  # among the numbers
    if how == "another letter":
        return text[:place] + ("B" if text[place] == "A" else "A") + text[place + 1 :]
    if how == "no letter":
        return text[:place] + "%" + text[place + 1 :]
    if how == "cut off":
        return text[:place]
    return text[: text.index('<script id="weights"')]


@pytest.mark.parametrize(
    "how, why",
    [
        ("another letter", "their checksum is another"),
        ("no letter", "they hold a letter that no weights have"),
        ("cut off", "some are missing"),
        ("not there", "they are missing"),
    ],
)
def test_damaged_weights_are_said_in_a_sentence(models, open_page, tmp_path, how, why):
    file = tmp_path / "damaged.html"
    file.write_text(damaged(models["small"].read_text(encoding="utf-8"), how), encoding="utf-8")
    page = open_page(address=file.as_uri())
    said = page.get_by_role("alert").inner_text()
    assert said == f"The weights in this page are damaged ({why}). Download the page again."
    assert not page.locator("#all").is_visible()


@pytest.mark.parametrize(
    "script", ["delete window.Worker", "window.Worker = class { constructor() { throw Error('no'); } }"]
)
def test_without_workers_a_sentence(open_page, script):
    page = open_page(script=script)
    assert "runs no workers, in which the page draws" in page.get_by_role("alert").inner_text()
    assert not page.locator("#all").is_visible()


def test_without_scripts_a_sentence(open_page):
    page = open_page(java_script_enabled=False)
    assert "JavaScript, which is switched off" in page.locator("noscript").inner_text()


def test_offline_a_sentence_and_all_the_same(open_page):
    page = open_page()
    assert not page.locator("#offline").is_visible()
    page.context.set_offline(True)
    wait(page, "!document.getElementById('offline').hidden")
    assert "the page needs no network" in page.locator("#offline").inner_text()
    drawn(page)
    page.locator("#seed").fill("9")
    drawn(page)
    page.context.set_offline(False)
    wait(page, "document.getElementById('offline').hidden")


def test_names_of_classes_are_text(open_page):
    page = open_page("small", viewport={"width": 320, "height": 700})
    page.locator("#count").fill("1")
    for label, name in enumerate(STRANGE):
        page.locator("#class").fill(str(label))
        assert page.locator("#class-name").inner_text() == name
        assert page.locator("#class").get_attribute("aria-valuetext") == name
    page.locator("#class").fill("0")
    drawn(page)
    page.get_by_role("button", name="Classify picture 1").click()
    wait(page, "!document.getElementById('judgement').hidden")
    assert set(page.locator("#posterior th").all_inner_texts()) == set(STRANGE)
    assert page.locator("img").count() == 0 and page.evaluate("document.documentElement.scrollWidth") == 320


def test_it_fits_every_width_and_scheme(open_page, capsys):
    """From 320 to 1600 pixels, light and dark: nothing stands over the edge. Prints the times of a machine at rest."""
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
        times = []
        for count in (1, 1, 1, 4):  # the first is the browser's first
            page.locator("#count").fill(str(count))
            page.locator("#class").fill(str(1 + len(times) % 2))
            drawn(page)
            times.append([round(ms) for ms in page.evaluate("[request.first, request.took]")])
        page.get_by_role("button", name="Classify picture 1").click()
        wait(page, "!document.getElementById('judgement').hidden && lookJob === shownLook")
        for width in (320, 390, 768, 1280, 1600):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") == width
            beyond = page.evaluate(
                "width => [...document.querySelectorAll('main *')].filter(e => !e.closest('.wide') && "
                "e.getBoundingClientRect().right > width + 0.5).map(e => e.outerHTML)", width
            )  # fmt: skip
            assert beyond == []
            page.screenshot(path=SHOTS / f"page_{scheme}_{width}.png", full_page=True)
        page.set_viewport_size({"width": 1100, "height": 1400})
        page.evaluate("scrollTo(0, 0)")
        box = page.locator("#look").bounding_box()
        clip = {"x": 0, "y": 0, "width": 1100, "height": box["y"] + box["height"]}
        page.screenshot(path=SHOTS / f"page_{scheme}.png", clip=clip)  # page/screenshot.png is the light one
        with capsys.disabled():
            print(f"\n{scheme}: first row and picture, ms: {times[:3]}; of four pictures {times[3]}")
