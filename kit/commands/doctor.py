from utils import UsageError

from ..doctor import doctor


def run() -> None:
    """what is installed, found and missing here"""
    if not doctor():
        raise UsageError("something needs fixing; the lines marked FIX say how")
