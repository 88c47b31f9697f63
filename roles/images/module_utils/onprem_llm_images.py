"""What the images modules have in common: looking an image up, and giving it its tag."""

from __future__ import annotations

from ansible.module_utils.onprem_llm_docker import docker

TIME_LIMIT = 6 * 3600  # seconds; a large image over a slow link is hours


class ImageError(Exception):
    """What was found and expected; for a person."""


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
