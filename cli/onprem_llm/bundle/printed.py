"""What a person does first on site, as lines to print, carry apart from the bundle, and type."""

import shlex
from pathlib import Path

from onprem_llm.bundle.manifest import BLOBS, MANIFEST, SIGNATURE, Manifest
from onprem_llm.bundle.signing import BUNDLE, public_line


def first_steps(manifest: Manifest, key: Path | None, signed_by: str | None) -> list[str]:
    """Return the lines: who may sign, how to verify the manifest with nothing but ssh-keygen, how to install.

    `key` is the one that was named now, `signed_by` the fingerprint of the one that signed, now or earlier.
    """
    if signed_by is None:
        return ["It is unsigned, and `verify` and `load` refuse it: run the same command again with --sign-key KEY."]
    if key is None:
        return [
            f"It is signed, by {signed_by}: with --sign-key KEY the same command prints what to carry apart from it."
        ]
    who, line = public_line(key)
    install = manifest.of_role("install")[0].sha256
    verify = (
        f"ssh-keygen -Y verify -f ALLOWED_SIGNERS -I {shlex.quote(who)} -n {BUNDLE} -s {SIGNATURE} < {MANIFEST}"
    )  # fmt: skip
    where = "in vol-001" if manifest.volumes else "in the bundle's folder"
    return [
        "Carry these lines apart from the bundle. The file of allowed signers:",
        f"  {line}",
        f"First on site, {where}:",
        f"  {verify}",
        "Then, for an onprem-llm on a machine that has none:",
        f"  echo '{install}  {BLOBS}/{install}' | sha256sum -c && sh {BLOBS}/{install}",
    ]
