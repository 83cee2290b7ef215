from utils import UsageError

from ..doctor import doctor


def run() -> None:
    """what is installed, found and missing here"""
    if not doctor():
        raise UsageError("something is to be mended; the lines marked MEND say how")
