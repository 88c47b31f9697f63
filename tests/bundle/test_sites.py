"""A site's folder is verified too, and is never taken for a bundle, nor a bundle for one."""

import datetime
import json
import shutil
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, Keys, sha256, tree
from tests.bundle.test_refused import refused

from onprem_llm.package_signing import sign_repository
from onprem_llm.package_trees import read_tree


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


LOST = [
    "packages/*/Release", "packages/*/InRelease", "packages/*/key.asc", "packages/*/Packages", "registry",
    "images/registry.tar", "onprem-llm.lock", "model.yaml", "sbom.json", "index.json", "oci-layout", "weights",
    "wheels", "licences",
]  # fmt: skip
# What is in these another command, or another bundle, has written: one that is damaged is said, and not overwritten.
KEPT = ["private/packages.pgp", "registry/index.json"]


@pytest.fixture(scope="module")
def loaded(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's folder, which each test leaves as it was."""
    site = tmp_path_factory.mktemp("loaded") / "site"
    made.load(made.root / "bundle", to=site)
    return site


@pytest.mark.parametrize(
    ("name", "how"), [*((name, how) for name in LOST for how in ("gone", "empty")), *((name, "gone") for name in KEPT)]
)
def test_what_was_lost_comes_back_with_the_same_bundle(made: Bench, loaded: Path, name: str, how: str) -> None:
    """It is what errors about these files say to do."""
    before = _settled(loaded)
    (lost,) = loaded.glob(name)
    if lost.is_dir():
        shutil.rmtree(lost)
        if how == "empty":
            lost.mkdir()
    else:
        lost.unlink()
        if how == "empty":
            lost.touch()
    made.load(made.root / "bundle", to=loaded)
    assert _settled(loaded) == before
    (repository,) = (loaded / "packages").iterdir()
    assert read_tree(repository).files
    assert not sign_repository(repository, loaded)  # it is signed, by the key that is here


def _settled(site: Path) -> dict[str, str]:
    """Return all sums but those of signatures and reports, which say when; another key signs otherwise, too."""
    signed = ("InRelease", "key.asc", "packages.pgp")
    return {
        path: "there" if path.endswith(signed) or path.startswith("reports/") else found
        for path, found in tree(site).items()
    }


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
    assert "remove these blobs and load again" in said
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
