"""PyYAML's safe loader and dumper over libyaml, where PyYAML was built with it: the same, in a seventh of the time.

Not the same is what it writes of text outside of ASCII without quotes, such as an emoji, and what `writes_alike` says.
"""

import re
from typing import TYPE_CHECKING, Any

import yaml

__all__ = ["WIDTH", "Dumper", "Loader", "read", "writes_alike"]

# Columns of a line, after which text is folded.
WIDTH = 10_000
# Keys that are written otherwise: an empty one, and one of about 128 characters, where a key gets a line of its own.
_KEY = re.compile(r'"(?:(?:[^"\\]|\\.){100,})?":')

if TYPE_CHECKING:
    from yaml import SafeDumper as Dumper
    from yaml import SafeLoader as Loader
else:
    Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: str) -> Any:
    """Return the value of one YAML document; yaml.YAMLError where it is none."""
    # Both are safe loaders.
    return yaml.load(text, Loader)  # noqa: S506


def writes_alike(value: str) -> bool:
    """Tell of a value, as json.dumps writes it, whether libyaml has PyYAML's way with its keys and long texts."""
    # Where nothing is folded, nothing is folded otherwise. A quoted ' is two; a line begins before its text.
    return len(value) + value.count("'") < WIDTH - 1_000 and not _KEY.search(value)
