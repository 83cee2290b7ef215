"""The command line has moved."""

import sys

if __name__ == "__main__":
    print("error: the command is `python -m kit` now, with the same words behind it", file=sys.stderr)
    sys.exit(2)
