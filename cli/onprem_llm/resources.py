"""Where the playbooks and roles are: inside the installed package, or at the top of a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the absolute path of `playbooks` or `roles`.

    A wheel carries them inside the package; an editable install has them beside cli/.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parents[1] / name
