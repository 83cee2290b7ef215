"""The command line has moved."""

import sys

print("error: the command is `python -m kit` now, with the same words behind it", file=sys.stderr)
sys.exit(2)
