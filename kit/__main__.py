"""The command line: `python -m kit COMMAND`."""

import importlib
import os
import sys

from utils import UsageError

from . import distributed
from .commands import Parser, add_flags, call
from .runs import Stopped
from .train import Diverged

COMMANDS = (
    "demo", "train", "evaluate", "generate", "classify", "data", "fid", "submit", "course-export", "sweep", "report",
    "doctor",
)  # fmt: skip


def build_parser() -> Parser:
    parser = Parser(prog="python -m kit", description="A class-conditional PixelCNN++: train, draw, classify.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        run = importlib.import_module(f".commands.{name.replace('-', '_')}", __package__).run
        summary = run.__doc__.partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        add_flags(command, run)
        command.set_defaults(run_command=run)
    return parser


def complain(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # the first of the processes speaks for all
        print(text, file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    try:
        args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
        with distributed.joined():
            call(args.run_command, vars(args))
    except UsageError as error:
        complain("error: " + " ".join(str(error).split()))
        return 2
    except ModuleNotFoundError as error:  # a platform's own image may lack one that only some commands need
        complain(f"error: package {str(error.name).partition('.')[0]!r} is missing: pip install -r requirements.txt")
        return 2
    except Diverged as error:
        complain(f"error: {error}")
        return 1
    except Stopped as stopped:
        complain(f"stopped and saved: {stopped}; the same command with --resume goes on")
        return 0 if "time limit" in str(stopped) else 130
    except KeyboardInterrupt:
        complain("interrupted; a training run goes on from its last checkpoint with --resume")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
