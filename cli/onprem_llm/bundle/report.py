"""What was verified, when, by which tool, with what result: a file that says so, signed where a key is given."""

import datetime
import json
from pathlib import Path

from onprem_llm import __version__
from onprem_llm.bundle.check import Checked
from onprem_llm.bundle.opening import Opened
from onprem_llm.bundle.signing import REPORT, sign
from onprem_llm.whole_files import write_whole

SCHEMA = 1


def report_of(opened: Opened, checked: Checked, did: str) -> dict[str, object]:
    """Return the report; `did` is verify or load."""
    manifest, signer = opened.manifest, opened.signer
    result = "damaged" if checked.damages else "incomplete" if opened.absent else "whole"
    return {
        "schema_version": SCHEMA,
        "did": did,
        "result": result,
        "of": opened.kind,
        "manifest_sha256": opened.sha256,
        "lock_sha256": manifest.lock_sha256,
        "made_with": manifest.made_with,
        "base": manifest.base,
        "expires": manifest.expires,
        "signer": {"principal": signer.principal, "key": signer.key} if signer else None,
        "folders": {name or "bundle": str(path) for name, path in opened.folders.items()},
        "absent_volumes": opened.absent,
        "files": checked.files,
        "bytes": checked.bytes,
        "damages": [
            {"name": one.name, "path": one.path, "found": one.found, "expected": one.expected}
            for one in checked.damages
        ],
        "extra": list(checked.extra),
    }


def refusal(paths: tuple[Path, ...], why: str) -> dict[str, object]:
    """Return the report on a bundle of which nothing was read."""
    return {
        "schema_version": SCHEMA,
        "did": "verify",
        "result": "refused",
        "why": why,
        "folders": [str(p) for p in paths],
    }


def write_report(path: Path, report: dict[str, object], key: Path | None) -> None:
    """Write the report and, with a key, its signature beside it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    whole = {**report, "at": now, "with": __version__, "signed": key is not None}
    if key is None:
        whole["note"] = "this report is unsigned: --report-key KEY signs it"
    data = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    # A report that says it is signed must not be left by a key that cannot sign.
    signed = sign(data, key, REPORT) if key else None
    signature = path.with_name(path.name + ".sig")
    # A signature of an earlier report must not stand beside this one.
    signature.unlink(missing_ok=True)
    write_whole(path, data)
    if signed is not None:
        write_whole(signature, signed)
