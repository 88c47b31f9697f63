"""Write a `docker save` archive of an image that holds nothing, always with the same id, and print the id.

Its containers mount the host's /usr, so that the test needs no registry and sends no bytes to speak of.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

REFERENCE = "onprem-llm-molecule/stub:1"
FOLDERS = ("usr", "tmp", "run", "etc", "srv")
LINKS = ("bin", "sbin", "lib", "lib64")


def layer() -> bytes:
    """Return the layer: folders to mount on, and links into /usr."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
    return out.getvalue()


def main(folder: Path) -> None:
    """Write image.tar and id below `folder`."""
    root = layer()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(root).hexdigest()]},
        },
        sort_keys=True,
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [REFERENCE], "Layers": ["layer.tar"]}]
    parts = {f"{digest}.json": config, "layer.tar": root, "manifest.json": json.dumps(manifest).encode()}
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "image.tar", "w") as tar:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "id").write_text(f"sha256:{digest}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
