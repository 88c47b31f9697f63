"""What the images modules have in common: a docker command whose failure is a message, and looking an image up."""

from __future__ import annotations

import subprocess

TIME_LIMIT = 6 * 3600  # seconds; a large image over a slow link is hours
LOOK_LIMIT = 60


class ImageError(Exception):
    """What was found and expected; for a person."""


def docker(*arguments, limit=LOOK_LIMIT):
    """Run docker and return (exit code, output with its errors)."""
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def image_id(reference):
    """Return the id of the image that the reference (an id, a tag, a digest) means here, or None."""
    code, text = docker("image", "inspect", "--format", "{{.Id}}", reference)
    return text if code == 0 and text.startswith("sha256:") else None


def find(wanted):
    """Return the id of a wanted image if it is here: by id, else by the registry's digest."""
    if wanted.get("id"):
        return image_id(wanted["id"])
    return image_id(wanted["pull"]) if wanted.get("pull") else None


def point_tag(reference, identity, check_mode=False):
    """Let the tag mean this image; return whether it did not before."""
    if image_id(reference) == identity:
        return False
    if not check_mode:
        code, text = docker("tag", identity, reference)
        if code != 0:
            raise ImageError(f"cannot tag {identity} as {reference}: {text}")
    return True


WANTED = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "id": {"type": "str"},
        "ref": {"type": "str", "required": True},
        "archive": {"type": "path"},
        "pull": {"type": "str"},
        "bytes": {"type": "int"},
    },
}
