"""Shared code of the class-conditional PixelCNN++ course kit. One file per idea; importing this loads nothing heavy."""


class UsageError(ValueError):
    """An input that the user can mend. Its text is one line: what is wrong and what to do."""
