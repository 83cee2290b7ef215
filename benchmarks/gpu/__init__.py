"""What only a GPU can show, in one go: `make gpu`, or `python -m benchmarks.gpu --help`."""
