"""Images by digest: one image, whichever registry's address stands before it."""


def place(reference: str) -> str:
    """Return `repository@sha256:…` without the registry's address; what has no digest (an id, a tag) is its own place.

    A registry that moved, or one on a host's loopback, changes no bytes of what was pulled from it.
    """
    _, slash, rest = reference.partition("/")
    return rest if slash and "@sha256:" in rest else reference


def digest_of(reference: str) -> str | None:
    """Return the digest that a reference names; None for an id or a tag."""
    return reference.partition("@")[2] or None


def short(reference: str) -> str:
    """Return a reference, or an id, as a message shows it: twelve digits of its digest."""
    head, mark, digest = reference.partition("sha256:")
    return f"{head}{mark}{digest[:12]}"
