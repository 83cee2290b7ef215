"""`make test-browser`: the notebooks' widgets in JupyterLab, under the keys of a headless Chromium.

JupyterLab serves a temporary copy of the kit on the loopback interface; the browser reaches nothing else. A notebook is
run from top to bottom, its training cut short, then every control of every widget is moved and moved back. Screenshots
go to `shots/`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, TimeoutError
from test_notebooks import cut_short

KIT = Path(__file__).resolve().parents[2]
SHOTS = Path(__file__).parent / "shots"
NOTEBOOKS = {path.name[:2]: path.name for path in (KIT / "notebooks").glob("[0-9]*.ipynb")}
PATIENCE = 900_000  # ms: what must come comes in the end, on a slow machine too; an error ends the wait at once
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
CONTROLS = ".noUi-handle, input[type=number], input[type=checkbox]"

# In the page: a fingerprint of the pixels of every picture in a widget, null while one of them is being decoded.
FINGERPRINT = """
window.fingerprint = widget => {
  const prints = [...widget.querySelectorAll("img")].map(image => {
    if (!image.complete || !image.naturalWidth) return null;
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return `${canvas.width}x${canvas.height}:` + pixels.reduce((hash, pixel) => Math.imul(hash ^ pixel, 16777619), 17);
  });
  return prints.length && !prints.includes(null) ? prints.join() : null;
}
"""
# From the next key on: when the first pixels change, and when the picture is the one expected (ms). Pictures are looked
# at when they have loaded, not all the time: that would take a core from what draws them.
STOPWATCH = """
(widget, expected) => addEventListener("keydown", () => {
  const pressed = performance.now(), before = fingerprint(widget);
  let first = null;
  widget.addEventListener("load", () => {
    const passed = performance.now() - pressed, now = fingerprint(widget);
    if (first === null && now !== before) first = passed;
    if (now === expected) window.measured ??= [first, passed];
  }, {capture: true});
}, {once: true, capture: true})
"""
# Whether all is drawn and shown: the kernel rests, and no drawing has taken its button away.
SETTLED = """
widget => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === "idle"
  && !widget.querySelector("button:disabled") && fingerprint(widget)
"""
# "done" once every cell that holds code has run and the kernel rests; an error's text as soon as there is one.
HAS_RUN = """
() => {
  const {content, sessionContext} = jupyterapp.shell.currentWidget;
  const cells = [...content.model.cells].filter(cell => cell.type === "code" && cell.sharedModel.getSource().trim());
  const error = cells.flatMap(cell => cell.outputs.toJSON()).find(output => output.output_type === "error");
  if (error) return `${error.ename}: ${error.evalue}`;
  return cells.every(cell => cell.executionCount) && sessionContext.session.kernel.status === "idle" ? "done" : null;
}
"""
# Until the loop that draws is compiled, where a widget has begun with that: it rounds otherwise than PyTorch.
COMPILED = """
async () => {
  const {kernel} = jupyterapp.shell.currentWidget.sessionContext.session;
  const code = "import sys; [t.join() for m in [sys.modules.get('kit.widgets.compiled')] if m for t in m.compiling]";
  return (await kernel.requestExecute({code}).done).content.status;
}
"""
# What a person at a 1280-pixel window could not read: labels that are cut off, widgets that stand over the edge.
UNREADABLE = """
widget => {
  const right = widget.closest(".jp-Cell-outputArea").getBoundingClientRect().right + 1;
  return [...widget.querySelectorAll("img, .widget-label, .noUi-target, input")].filter(part =>
    part.getBoundingClientRect().right > right
    || part.matches(".widget-label") && part.scrollWidth > part.clientWidth).map(part => part.outerHTML);
}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows a copy of the kit; it ends with the tests, and its kernels with it."""
    home = tmp_path_factory.mktemp("lab")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "runs", "wandb", "samples", "shots")
    shutil.copytree(KIT, home / "kit", ignore=left_out)
    for path in (home / "kit/notebooks").glob("[0-9]*.ipynb"):
        nbformat.write(cut_short(nbformat.read(path, as_version=4)), path)
    (home / "config/labconfig").mkdir(parents=True)
    (home / "config/labconfig/default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    private = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={home / 'kit'}"),
        *("--IdentityProvider.token=", "--ServerApp.log_level=WARN"),
    ]
    environment = os.environ | {name: str(home / folder) for name, folder in private.items()}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not (found := list(home.glob("runtime/jpserver-*.json"))) or not found[0].read_text().endswith("}"):
            assert server.poll() is None and time.monotonic() < end, (home / "log").read_text()
            time.sleep(0.1)
        yield json.loads(found[0].read_text())["url"].rstrip("/")
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def page(lab, chromium):
    """A page in a new browser profile. An error of a script or of JupyterLab fails the test, and so does an answer
    from elsewhere; that the notebooks' badges, pictures from the web, find no answer is as it should be."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800}, base_url=lab)
    page.set_default_timeout(PATIENCE)
    page.add_init_script(FINGERPRINT)
    faults: list[str] = []

    def on_console(said):
        if said.type == "error" and said.location["url"].startswith(lab):
            faults.append(said.text)

    def on_response(response):
        if not response.url.startswith((lab, "blob:", "data:")):
            faults.append(f"{response.url} was reached")

    page.on("console", on_console)
    page.on("response", on_response)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert not faults


def run_notebook(page: Page, number: str) -> list[Locator]:
    """Runs all cells in a new kernel; returns the widgets, each a box of controls and pictures."""
    page.goto(f"/lab/tree/notebooks/{NOTEBOOKS[number]}?reset")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    page.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    assert page.wait_for_function(HAS_RUN).json_value() == "done"
    assert page.evaluate(COMPILED) == "ok"
    widgets = page.locator(".jp-OutputArea-output > .jupyter-widgets:has(img)")
    widgets.first.wait_for()
    return widgets.all()


def picture(widget: Locator) -> str:
    return widget.evaluate("fingerprint")


def wait_for_picture(widget: Locator, condition: str, other: str, what: str) -> None:
    """Until the widget's picture `condition` (=== or !==) another, by their fingerprints."""
    try:
        widget.page.wait_for_function(
            f"([widget, other]) => fingerprint(widget) && fingerprint(widget) {condition} other",
            arg=[widget.element_handle(), other], timeout=120_000, polling=50,
        )  # fmt: skip
    except TimeoutError:
        pytest.fail(what)


def settled(widget: Locator) -> str:
    """The picture, once it is drawn to the end."""
    return widget.page.wait_for_function(SETTLED, arg=widget.element_handle(), polling=50).json_value()


def keys_of(control: Locator) -> tuple[str, str]:
    """The key that moves a control one step to where there is room, and the key that moves it back."""
    kind, at_end = control.evaluate("c => [c.type ?? 'slider', +c.ariaValueNow >= +c.ariaValueMax]")
    there, back = {
        "slider": ("ArrowRight", "ArrowLeft"),
        "number": ("ArrowUp", "ArrowDown"),
        "checkbox": ("Space", "Space"),
    }[kind]
    return (back, there) if at_end and kind == "slider" else (there, back)


def press(control: Locator, key: str) -> None:
    control.focus()
    control.page.keyboard.press(key)


def check_widget(widget: Locator) -> None:
    """Moves all controls one step by the keyboard, each on top of the others, then all of them back."""
    assert widget.evaluate(UNREADABLE) == []
    controls = widget.locator(CONTROLS).all()
    start = settled(widget)
    for key in keys_of(controls[0]):  # PyTorch drew the picture that is there
        press(controls[0], key)
        wait_for_picture(widget, "!==", start, "the picture does not follow the first control")
        start = settled(widget)
    first = last = start
    ways_back = []
    for nr, control in enumerate(controls, 1):
        there, back = keys_of(control)
        press(control, there)
        wait_for_picture(widget, "!==", last, f"the picture does not follow control {nr} of {len(controls)}")
        last = settled(widget)
        ways_back.append((control, back))
    for control, back in reversed(ways_back):
        press(control, back)
    wait_for_picture(widget, "===", first, "the same setting gives another picture")


def check_tab_order(widget: Locator) -> None:
    """The tab key goes from the first control through all others."""
    page, controls = widget.page, widget.locator(CONTROLS)
    controls.first.focus()
    reached = {0}
    for _ in range(4 * controls.count()):  # the numbers beside the sliders are stops as well
        page.keyboard.press("Tab")
        reached.add(controls.evaluate_all("controls => controls.indexOf(document.activeElement)"))
    assert reached - {-1} == set(range(controls.count()))


def measure(widget: Locator) -> tuple[float, float]:
    """Milliseconds from a slider's key to the first changed pixels, and to the whole picture."""
    page, slider = widget.page, widget.locator(CONTROLS).first
    whole = picture(widget)
    press(slider, "ArrowRight")
    wait_for_picture(widget, "!==", whole, "the picture does not follow the slider")
    settled(widget)
    widget.evaluate(STOPWATCH, whole)
    press(slider, "ArrowLeft")
    return tuple(page.wait_for_function("window.measured").json_value())


def test_quickstart(page, capsys):
    (widget,) = run_notebook(page, "00")
    check_widget(widget)
    check_tab_order(widget)
    first, whole = measure(widget)
    with capsys.disabled():
        print(f"\nclass slider, from the key to the first rows: {first:.0f} ms, to the whole picture: {whole:.0f} ms")
    cell = page.locator(".jp-CodeCell", has=widget)
    for theme in ("Dark", "Light"):  # the last one stays
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", f"JupyterLab {theme}")
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.evaluate("document.activeElement.blur()")
        cell.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / f"00_{theme.lower()}.png")
        cell.screenshot(path=SHOTS / f"class_slider_{theme.lower()}.png")


@pytest.mark.parametrize("number", ["01", "02", "06"])
def test_notebook(page, number):
    for nr, widget in enumerate(run_notebook(page, number), 1):
        check_widget(widget)
        widget.screenshot(path=SHOTS / f"{number}_widget_{nr}.png")


def upload(widget: Locator, file: Path) -> None:
    with widget.page.expect_file_chooser() as chooser:
        press(widget.get_by_role("button", name="upload"), "Enter")
    chooser.value.set_files(file)


def test_evidence_lens(page, tmp_path):
    (widget,) = run_notebook(page, "05")
    assert widget.evaluate(UNREADABLE) == []
    names = ["picture", "evidence for", "against", "cover rows from", "to", "cover columns from", "to"]
    handles = widget.locator(".noUi-handle").all()
    assert len(handles) == len(names)
    last = settled(widget)
    for nr in (0, 1, 2, 4, 5):  # nothing is covered at first, so the end of the rows comes before the columns
        for _ in range(3):
            press(handles[nr], "ArrowRight")
        wait_for_picture(widget, "!==", last, f"the picture does not follow {names[nr]!r}")
        last = settled(widget)
    note = widget.locator(".widget-html")
    (tmp_path / "notes.png").write_text("no picture")
    upload(widget, tmp_path / "notes.png")
    note.filter(has_text="notes.png is refused").wait_for()
    assert settled(widget) == last, "a refused file changes nothing"
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "orange.png")
    upload(widget, tmp_path / "orange.png")
    note.filter(has_text="orange.png: ").wait_for()
    wait_for_picture(widget, "!==", last, "the picture does not follow the upload")
    widget.screenshot(path=SHOTS / "05_widget_1.png")
