"""How fast the kit is, against its own plain float32 path: `make bench`, or `python -m benchmarks --help`."""
