"""What must not be loaded: unsigned, altered, expired, foreign, newer, damaged, leading out of its folder."""

import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, Keys, flip, tree


def manifest_of(folder: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((folder / "manifest.json").read_bytes())
    return value


def sign_again(bench: Bench, folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the manifest, and sign it as one whom the site trusts."""
    value = manifest_of(folder)
    change(value)
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    (folder / "manifest.json").write_bytes(data)
    signature = folder / "manifest.json.sig"
    signature.unlink()
    sign_as(bench, folder, "onprem-llm-bundle")


def sign_as(bench: Bench, folder: Path, purpose: str) -> None:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", bench.keys.key, "-n", purpose, folder / "manifest.json"]
    subprocess.run(command, check=True, capture_output=True)


def refused(bench: Bench, folder: Path, *words: str, status: int = 3) -> None:
    """Verify and load refuse it with these words, and nothing was loaded."""
    site = bench.root / "site"
    for said in (bench.verify(folder, status=status), bench.load(folder, to=site, status=status)):
        assert all(word in said for word in words), said
    assert not (site / "site.json").exists()


def test_unsigned(bench: Bench, bundle: Path) -> None:
    (bundle / "manifest.json.sig").unlink()
    refused(bench, bundle, "unsigned", "--sign-key")
    bench.create(bundle)
    bench.verify(bundle)


def test_by_an_unknown_key(bench: Bench, bundle: Path) -> None:
    bench.keys = Keys(bench.root / "others").make()
    refused(bench, bundle, "signed by a key that", "does not name")


def test_by_a_key_for_other_things(bench: Bench, bundle: Path, made: Bench) -> None:
    bench.keys = Keys(Path(shutil.copytree(made.keys.folder, bench.root / "keys"))).make('namespaces="git"')
    refused(bench, bundle, "let this key sign other things alone")


def test_by_a_key_whose_time_is_over(bench: Bench, bundle: Path, made: Bench) -> None:
    bench.keys = Keys(Path(shutil.copytree(made.keys.folder, bench.root / "keys"))).make('valid-before="20200101"')
    refused(bench, bundle, "valid-before")


def test_a_signature_for_another_purpose(bench: Bench, bundle: Path) -> None:
    (bundle / "manifest.json.sig").unlink()
    sign_as(bench, bundle, "git")
    site = bench.root / "site"
    bench.load(bundle, to=site, status=3)
    assert not site.exists()


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sig"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_an_altered_manifest_or_signature(bench: Bench, bundle: Path, name: str, damage: str) -> None:
    path = bundle / name
    if damage == "flip":
        flip(path, 120)
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    refused(bench, bundle, "manifest.json")


def test_expired(bench: Bench, tmp_path: Path) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    for days, status in ((0, 0), (-1, 3)):
        day = str(today + datetime.timedelta(days=days))
        bench.here = Connected(tmp_path / f"here{days}", expires=day).make()
        folder = tmp_path / f"bundle{days}"
        # One that is over already can be made: what counts is the day on which it is used.
        bench.create(folder)
        said = bench.verify(folder, status=status)
        assert status == 0 or f"it was good until {day}, and today is {today}" in said
        bench.load(folder, to=tmp_path / f"site{days}", status=status)


def test_newer_than_the_tool(bench: Bench, bundle: Path) -> None:
    sign_again(bench, bundle, lambda value: value.update(schema_version=2, something="new"))
    refused(bench, bundle, "made by a newer onprem-llm: found schema_version 2", "update onprem-llm")


@pytest.mark.parametrize(
    "path", ["../out", "/etc/out", "a/../../out", "a//b", "./a", "a\\b", "a\nb", "", "config.json/x"]
)  # fmt: skip
def test_paths_that_leave_a_view(bench: Bench, bundle: Path, path: str) -> None:
    def change(value: dict[str, object]) -> None:
        views = {view["kind"]: view for view in value["folders"]}  # type: ignore[attr-defined]
        files = views["weights"]["files"]
        prefix = "Tiny/" if path == "config.json/x" else ""
        files.append({"path": prefix + path, "sha256": files[0]["sha256"]})

    sign_again(bench, bundle, change)
    refused(bench, bundle, "not the manifest of a bundle: one problem", "folders.")
    assert not (bench.root / "out").exists()


@pytest.mark.parametrize("name", ["..", "../..", "/tmp", "a/b", ".hidden", ""])
def test_names_of_views_that_leave_the_site(bench: Bench, bundle: Path, name: str) -> None:
    sign_again(bench, bundle, lambda value: value["folders"][0].update(name=name))  # type: ignore[index]
    refused(bench, bundle, "not the manifest of a bundle: one problem", "folders.0.name: found")


def test_a_blob_that_is_named_and_not_listed(bench: Bench, bundle: Path) -> None:
    sign_again(bench, bundle, lambda value: value["folders"][0]["files"][0].update(sha256="0" * 64))  # type: ignore[index]
    refused(bench, bundle, "is named, and is no blob of it")


def test_bytes_that_are_not_canonical(bench: Bench, bundle: Path) -> None:
    value = manifest_of(bundle)
    (bundle / "manifest.json").write_text(json.dumps(value, indent=1))
    (bundle / "manifest.json.sig").unlink()
    sign_as(bench, bundle, "onprem-llm-bundle")
    refused(bench, bundle, "not the canonical ones")


def blob_of(folder: Path, role: str) -> Path:
    blobs = manifest_of(folder)["blobs"]
    found = [blob for blob in blobs if blob["role"] == role and blob["size"]]  # type: ignore[attr-defined]
    return folder / "blobs" / "sha256" / max(found, key=lambda blob: blob["size"])["sha256"]


ROLES = [
    "install", "lock", "sbom", "licence", "packages-index", "package", "wheel", "image-manifest", "image-config",
    "image-layer", "weights",
]  # fmt: skip


@pytest.mark.parametrize("role", [*ROLES, "oci-layout", "index.json"])
def test_a_flipped_bit_in_each_kind_of_file(bench: Bench, bundle: Path, role: str) -> None:
    path = bundle / role if role in {"oci-layout", "index.json"} else blob_of(bundle, role)
    flip(path)
    report = bench.root / "report.json"
    said = bench.verify(bundle, status=5, more=("--report", report))
    assert str(path) in said
    assert "1 of " in said
    assert json.loads(report.read_bytes())["result"] == "damaged"
    if role != "oci-layout":  # which the site writes itself
        said = bench.load(bundle, to=bench.root / "site", status=5)
        assert str(path) in said
        assert "found" in said
        assert not list((bench.root / "site").glob("weights/*/*"))


@pytest.mark.parametrize("what", ["gone", "empty", "short", "long", "link", "folder", "pipe"])
def test_a_blob_that_is_no_whole_file(bench: Bench, bundle: Path, what: str) -> None:
    path = blob_of(bundle, "weights")
    data = path.read_bytes()
    path.unlink()
    if what == "link":
        # To the right bytes, outside of the bundle.
        (bench.root / "outside").write_bytes(data)
        path.symlink_to(bench.root / "outside")
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "gone":
        path.write_bytes({"empty": b"", "short": data[:-1], "long": data + b"0"}[what])
    said = bench.verify(bundle, status=5)
    assert "model-" in said
    assert path.name in said
    status = 3 if what in {"link", "folder", "pipe"} else 5
    assert path.name in bench.load(bundle, to=bench.root / "site", status=status)
    assert not (bench.root / "site" / "weights").exists()


def test_the_folder_of_blobs_is_a_link(bench: Bench, bundle: Path) -> None:
    (bundle / "blobs").rename(bench.root / "outside")
    (bundle / "blobs").symlink_to(bench.root / "outside")
    assert "a link" in bench.verify(bundle, status=5)
    assert "a link" in bench.load(bundle, to=bench.root / "site", status=3)


def test_a_damaged_medium_is_copied_again_and_the_load_goes_on(bench: Bench, bundle: Path, made: Bench) -> None:
    path = blob_of(bundle, "weights")
    flip(path)
    site = bench.root / "site"
    bench.load(bundle, to=site, status=5)
    assert not list(site.rglob("*.partial"))
    shutil.copy(made.root / "bundle" / "blobs" / "sha256" / path.name, path)
    bench.load(bundle, to=site)
    assert len(tree(site / "weights")) == len(made.here.weights)


def test_strangers_files_are_named_and_never_loaded(bench: Bench, bundle: Path) -> None:
    (bundle / "blobs" / "sha256" / ("f" * 64)).write_bytes(b"nobody's")
    (bundle / "autorun.inf").write_bytes(b"nobody's")
    (bundle / "\x1b]0;signed").write_bytes(b"nobody's")
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff")).write_bytes(b"nobody's")
    report = bench.root / "report.json"
    said = bench.verify(bundle, more=("--report", report))
    assert "autorun.inf: not of the bundle, and never read" in said
    assert "\x1b" not in said
    assert "bundle/\\x1b]0;signed" in said
    assert "\\udcff" in said
    assert "\\udcff" in report.read_text()
    bench.load(bundle, to=bench.root / "site")
    assert b"nobody's" not in {path.read_bytes() for path in (bench.root / "site").rglob("*") if path.is_file()}


def test_no_bundle_at_all(bench: Bench) -> None:
    (bench.root / "empty").mkdir()
    assert "no bundle: it has no manifest.json" in bench.verify(bench.root / "empty", status=3)
    assert "no folder" in bench.verify(bench.root / "nothing", status=3)


def test_load_into_somebody_elses_folder(bench: Bench, bundle: Path) -> None:
    site = bench.root / "home"
    site.mkdir()
    (site / "letter.txt").write_text("dear")
    assert "is not empty (letter.txt)" in bench.load(bundle, to=site, status=6)
    assert (site / "letter.txt").exists()
    assert not (site / "blobs").exists()
