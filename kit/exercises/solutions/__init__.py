"""The answers to the pieces that the reader builds, each under the name that the reader gives it."""
