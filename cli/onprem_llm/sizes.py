"""Sizes as people write them; how they are shown is output.py's."""

from onprem_llm.errors import UsageError


def parse_size(text: str, option: str) -> int:
    """Read 4GB, 700MB, 4GiB or a number of bytes; UsageError, which names the option, otherwise."""
    units = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
    units |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "TIB": 1024**4}
    digits = text.strip().rstrip("BbKkMmGgTtIi ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        size = int(float(digits) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(f"{option}: found {text!r}, expected a size such as 4GB", hint="4GB, 700MB, 4GiB") from None
    if size <= 0:
        raise UsageError(f"{option}: found {text!r}, expected more than nothing", hint="4GB, 700MB, 4GiB")
    return size
