"""What a bundle holds, for people and as JSON."""

from collections import Counter

from onprem_llm.bundle.manifest import Manifest
from onprem_llm.bundle.opening import Opened
from onprem_llm.output import human_bytes, mapping_text, table_text


def summary(opened: Opened) -> dict[str, object]:
    """Return what `bundle inspect --json` prints."""
    manifest, signer = opened.manifest, opened.signer
    return {
        "of": opened.kind,
        "manifest_sha256": opened.sha256,
        "lock_sha256": manifest.lock_sha256,
        "made_with": manifest.made_with,
        "platform": manifest.platform,
        "expires": manifest.expires,
        "base": manifest.base,
        "signer": {"principal": signer.principal, "key": signer.key} if signer else None,
        "bytes": manifest.bytes,
        "blobs": len(manifest.carried),
        "roles": roles(manifest),
        "images": [{"ref": image.ref, "digest": image.digest} for image in manifest.images],
        "folders": [
            {"kind": view.kind, "name": view.name, "files": len(view.files), **view.about} for view in manifest.folders
        ],
        "volumes": {
            volume.name: str(opened.folders[volume.name]) if volume.name in opened.folders else None
            for volume in manifest.volumes
        },
    }


def roles(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Count blobs and bytes by role."""
    blobs, sizes = Counter[str](), Counter[str]()
    for blob in manifest.carried:
        blobs[blob.role] += 1
        sizes[blob.role] += blob.size
    return {role: {"blobs": blobs[role], "bytes": sizes[role]} for role in sorted(blobs)}


def summary_text(opened: Opened) -> str:
    """Return what `bundle inspect` prints."""
    manifest = opened.manifest
    signer = f"{opened.signer.principal}, {opened.signer.key}" if opened.signer else "not looked at (--allowed-signers)"
    head = mapping_text({
        "bundle": f"{opened.sha256}, loaded into this site's folder" if opened.loaded else opened.sha256,
        "lock": manifest.lock_sha256,
        "made with": f"onprem-llm {manifest.made_with}, for {manifest.platform}",
        "good until": manifest.expires or "no end",
        "base": manifest.base or "none: it is whole",
        "signed by": signer,
        "size": f"{human_bytes(manifest.bytes)} in {len(manifest.carried)} blobs",
    })  # fmt: skip
    tables = [
        table_text(
            ("role", "blobs", "size"), [(r, v["blobs"], human_bytes(v["bytes"])) for r, v in roles(manifest).items()]
        )
    ]
    if manifest.images:
        tables.append(table_text(("image", "digest"), [(i.ref, i.digest) for i in manifest.images]))
    rows = [(view.kind, view.name, len(view.files), _about(view.about)) for view in manifest.folders]
    tables.append(table_text(("folder", "name", "files", "of"), rows))
    if manifest.volumes:
        here = [(v.name, len(v.contents), opened.folders.get(v.name, "not here")) for v in manifest.volumes]
        tables.append(table_text(("volume", "blobs", "folder"), here))
    return "\n\n".join([head, *tables])


def _about(about: dict[str, str | tuple[str, ...] | None]) -> str | None:
    texts = [", ".join(v) if isinstance(v, tuple) else v for k, v in about.items() if v and k != "folder"]
    return " ".join(texts) or None
