"""What says that it is signed is signed: bundles that are made again, reports."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.bundle.kit import Bench


def fingerprint(bench: Bench) -> str:
    said = subprocess.run(["ssh-keygen", "-l", "-f", bench.keys.key], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


def created(bench: Bench, out: Path, *more: object) -> str:
    return bench.run("create", "--lock", bench.here.lock, "-o", out, *more)


@pytest.mark.parametrize("more", [(), ("--volume-size", "2MB")], ids=["one folder", "volumes"])
def test_a_signed_bundle_that_is_made_again_without_the_key_is_still_signed(
    bench: Bench, more: tuple[str, ...]
) -> None:
    out = bench.root / "out"
    said = created(bench, out, *more)
    assert "It is unsigned" in said
    assert '"signed": false' in created(bench, out, *more, "--json")
    bench.create(out, *more)
    said = created(bench, out, *more)
    assert f"It is signed, by {fingerprint(bench)}" in said
    assert "unsigned" not in said
    assert '"signed": true' in created(bench, out, *more, "--json")
    # One signature that is gone, or of other bytes, is none.
    signature = sorted(out.rglob("manifest.json.sig"))[-1]
    good = signature.read_bytes()
    for bad in (None, b"", good[:-40]):
        signature.unlink()
        if bad is not None:
            signature.write_bytes(bad)
        assert "It is unsigned" in created(bench, out, *more)
        signature.write_bytes(good)
    assert "It is signed" in created(bench, out, *more)


@pytest.mark.parametrize("bad", ["absent", "no key"])
def test_a_key_that_cannot_sign_leaves_no_report_that_says_so(bench: Bench, bundle: Path, bad: str) -> None:
    report, key = bench.root / "report.json", bench.root / "key"
    if bad == "no key":
        key.write_text("no key\n")
    status = 3 if bad == "absent" else 5
    said = bench.verify(bundle, status=status, more=("--report", report, "--report-key", key))
    assert str(key) in said
    assert not report.exists()
    # Nor is what a good one signed before touched.
    bench.verify(bundle, more=("--report", report, "--report-key", bench.keys.key))
    before = [path.read_bytes() for path in (report, Path(f"{report}.sig"))]
    bench.verify(bundle, status=status, more=("--report", report, "--report-key", key))
    assert [path.read_bytes() for path in (report, Path(f"{report}.sig"))] == before
    assert json.loads(before[0])["signed"] is True


def test_reports_are_signed_where_a_key_is_given(bench: Bench, bundle: Path) -> None:
    report = bench.root / "report.json"
    bench.verify(bundle, more=("--report", report, "--report-key", bench.keys.key))
    found = json.loads(report.read_bytes())
    assert (found["result"], found["signed"], found["signer"]["principal"]) == ("whole", True, "me@laptop")
    command = [
        "ssh-keygen", "-Y", "verify", "-f", bench.keys.allowed, "-I", "me@laptop", "-n", "onprem-llm-report", "-s",
        f"{report}.sig",
    ]  # fmt: skip
    subprocess.run(command, input=report.read_bytes(), check=True, capture_output=True)
    bench.verify(bundle, more=("--report", report))
    assert "unsigned" in json.loads(report.read_bytes())["note"]
    assert not Path(f"{report}.sig").exists()
    # One that is refused leaves a report, too.
    (bundle / "manifest.json.sig").unlink()
    bench.verify(bundle, status=3, more=("--report", report))
    assert json.loads(report.read_bytes())["result"] == "refused"
