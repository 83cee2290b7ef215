import contextlib
import http.server
from pathlib import Path

from utils import UsageError
from utils.checkpoints import write_atomically

from ..page import page
from ..platforms import KIT, check_writable, find_weights, load_model


def run(checkpoint: str, out: str = "", serve: bool = False) -> None:
    """one HTML file in which a model draws, in any browser

    Args:
        checkpoint: shipped weights, a run's name, or a .safetensors file; of at most 3 million parameters.
        out: the file, NAME.html; dist/page/index.html of the kit if not given.
        serve: show it at an address of this machine until Ctrl-C.
    """
    path = Path(out) if out else KIT / "dist" / "page" / "index.html"
    if path.suffix != ".html" or path.is_dir():
        raise UsageError(f"--out takes a file that ends in .html, not {out!r}")
    check_writable(path.parent)
    weights = find_weights(checkpoint)
    in_run = weights.stem in ("best", "last")  # a run's files are all called so
    text = page(load_model(weights), weights.parent.name if in_run else weights.stem)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, all in one file: open it in a browser", flush=True)
    if serve:
        show(text.encode())


def show(content: bytes) -> None:
    """Serves the page, and nothing else, to this machine alone, at a free port, until Ctrl-C."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            with contextlib.suppress(ConnectionError):  # the browser has gone
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{server.server_port}/ until Ctrl-C", flush=True)
        server.serve_forever()
