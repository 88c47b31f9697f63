"""A site's folder is verified too, and is never taken for a bundle, nor a bundle for one."""

import datetime
import json
import shutil
from pathlib import Path

from tests.bundle.kit import Bench, Connected, Keys, sha256
from tests.bundle.test_refused import refused


def test_a_bundle_that_says_it_is_a_site_is_still_a_bundle(bench: Bench, tmp_path: Path) -> None:
    """Nobody signs site.json: with one on the medium, an expired bundle was verified."""
    today = datetime.datetime.now(datetime.UTC).date()
    bench.here = Connected(tmp_path / "here", expires=str(today - datetime.timedelta(days=1))).make()
    for name, more in (("bundle", ()), ("volumes", ("--volume-size", "2MB"))):
        folder = tmp_path / name
        bench.create(folder, *more)
        place = folder if name == "bundle" else folder / "vol-001"
        data = (place / "manifest.json").read_bytes()
        (folder / "bundles").mkdir()
        (folder / f"bundles/{sha256(data)}.json").write_bytes(data)
        shutil.copy(place / "manifest.json.sig", folder / f"bundles/{sha256(data)}.json.sig")
        (folder / "site.json").write_text(json.dumps({"schema_version": 1, "loaded": [sha256(data)]}))
        refused(bench, folder, "it was good until")
        assert "it was good until" in bench.run("inspect", folder, "--allowed-signers", bench.keys.allowed, status=3)


def test_what_is_verified_of_a_site_is_said_to_be_one(bench: Bench, bundle: Path) -> None:
    site, report = bench.root / "site", bench.root / "report.json"
    assert "site's folder" not in bench.verify(bundle, more=("--report", report))
    assert json.loads(report.read_bytes())["of"] == "bundle"
    bench.load(bundle, to=site)
    said = bench.verify(site, more=("--report", report))
    assert "This is a site's folder, no bundle to load" in said
    assert json.loads(report.read_bytes())["of"] == "site"
    assert '"of": "site"' in bench.verify(site, more=("--json",))
    assert "loaded into this site's folder" in bench.run("inspect", site)


def test_a_site_whose_disk_changed_a_blob(bench: Bench, bundle: Path) -> None:
    site = bench.root / "site"
    bench.load(bundle, to=site)
    assert "As it was signed" in bench.verify(site)
    good = shutil.copytree(bundle, bench.root / "good")
    weights = next(site.glob("weights/*/Tiny/model-2.safetensors"))
    layer = max(site.glob("registry/docker/registry/v2/blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)
    blobs = [next(b for b in (site / "blobs/sha256").iterdir() if b.samefile(path)) for path in (weights, layer)]
    for blob in blobs:
        with blob.open("r+b") as stream:  # in place, as a disk does it: everything that is linked to it has changed
            stream.seek(1000)
            stream.write(b"another")
    said = bench.verify(site, status=5)
    assert "2 of " in said
    assert "model-2.safetensors" in said
    assert "name it alone" in bench.verify(site, bundle, status=2)
    assert "is a site's folder" in bench.load(site, to=bench.root / "other", status=2)
    # Removed and loaded again, they are well, and so is all that was made of them.
    for blob in blobs:
        blob.unlink()
    bench.load(good, to=site)
    assert "As it was signed" in bench.verify(site)
    assert weights.samefile(blobs[0])
    assert layer.samefile(blobs[1])
    bench.keys = Keys(bench.root / "others").make()
    assert "does not name" in bench.verify(site, status=3)
