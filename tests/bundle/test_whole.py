"""A bundle from a lock: the same each time, whole, and a site from it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, tree
from tests.made_images import sha256

from onprem_llm.image_archives import find_archives


def manifest_of(folder: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((folder / "manifest.json").read_bytes())
    return value


def test_the_same_lock_makes_the_same_bundle(made: Bench, tmp_path: Path) -> None:
    # Another machine: everything lies elsewhere, was made in another order, and is older.
    there = Connected(tmp_path / "elsewhere" / "deep")
    there.weights = dict(reversed(there.weights.items()))
    there.make()
    for path in sorted(there.root.rglob("*"), reverse=True):
        if path.is_file():
            os.utime(path, (1_000_000_000, 1_000_000_000))
    assert there.lock.read_bytes() == made.here.lock.read_bytes()
    Bench(tmp_path, there, made.keys).create(tmp_path / "again")
    subprocess.run(["diff", "-r", made.root / "bundle", tmp_path / "again"], check=True)


def test_everything_of_the_lock_is_a_blob_once(made: Bench) -> None:
    folder = made.root / "bundle"
    names = tree(folder)
    blobs = {name: found for name, found in names.items() if name.startswith("blobs/sha256/")}
    assert all(name == f"blobs/sha256/{found}" for name, found in blobs.items())
    lock = json.loads(made.here.lock.read_bytes())
    wanted = [
        file["sha256"] for part in ("weights", "packages", "wheels") for one in lock[part] for file in one["files"]
    ]
    wanted += [image[key].removeprefix("sha256:") for image in lock["images"] for key in ("digest", "id")]
    assert set(wanted) <= set(blobs.values())
    assert sha256(made.here.lock.read_bytes()) in blobs.values()
    assert set(names) - set(blobs) == {"oci-layout", "index.json", "manifest.json", "manifest.json.sig"}
    manifest = (folder / "manifest.json").read_bytes()
    value = json.loads(manifest)
    assert manifest == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    assert value["lock_sha256"] == sha256(made.here.lock.read_bytes())


def test_its_root_is_an_image_layout(made: Bench) -> None:
    folder = made.root / "bundle"
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_bytes())
    refs = {one["annotations"]["org.opencontainers.image.ref.name"]: one for one in index["manifests"]}
    lock = json.loads(made.here.lock.read_bytes())
    assert {ref: one["digest"] for ref, one in refs.items()} == {i["ref"]: i["digest"] for i in lock["images"]}
    for one in index["manifests"]:
        blob = folder / "blobs" / "sha256" / one["digest"].removeprefix("sha256:")
        assert blob.stat().st_size == one["size"]
        for layer in json.loads(blob.read_bytes())["layers"]:
            assert (folder / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).is_file()


def test_a_second_create_writes_and_reads_nothing(bench: Bench, bundle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    # Not even the sources are looked for.
    shutil.move(bench.here.cache, bench.root / "cache-away")
    try:
        assert "nothing to do" in bench.create(bundle)
    finally:
        shutil.move(bench.root / "cache-away", bench.here.cache)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_a_folder_of_somebody_else_is_left_alone(bench: Bench) -> None:
    folder = bench.root / "photos"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"jpg")
    assert "is not empty (one.jpg)" in bench.create(folder, status=6)
    assert tree(folder) == {"one.jpg": sha256(b"jpg")}


def test_what_the_cache_lacks_is_named(bench: Bench) -> None:
    lock = json.loads(bench.here.lock.read_bytes())
    package = lock["packages"][0]["files"][0]
    blob = bench.here.blobs / package["sha256"]
    blob.rename(bench.root / "away")
    try:
        said = bench.create(bench.root / "out", status=3)
    finally:
        (bench.root / "away").rename(blob)
    # It was asked for again, and there is no such package anywhere.
    assert package["name"] in said
    assert not (bench.root / "out" / "manifest.json").exists()
    bench.create(bench.root / "out")
    bench.verify(bench.root / "out")


def test_load_makes_the_site(bench: Bench, made: Bench) -> None:
    site = bench.root / "site"
    bench.load(made.root / "bundle", to=site)
    (weights,) = (site / "weights").iterdir()
    found = {path: sha256(data) for path, data in made.here.weights.items()}
    assert tree(weights / "Tiny") == found
    # A deploy from this folder has the lock's id for it.
    assert weights.name == json.loads(made.here.lock.read_bytes())["weights"][0]["name"]
    assert (site / "onprem-llm.lock").read_bytes() == made.here.lock.read_bytes()
    large = weights / "Tiny" / "model-1.safetensors"
    assert large.stat().st_ino == (site / "blobs" / "sha256" / found["model-1.safetensors"]).stat().st_ino
    assert (site / "model.yaml").read_bytes() == (made.here.root / "model.yaml").read_bytes()
    layer = json.loads((site / "index.json").read_bytes())["manifests"][0]["digest"].removeprefix("sha256:")
    assert (site / "registry/docker/registry/v2/blobs/sha256" / layer[:2] / layer / "data").is_file()
    # The one image that no registry can give, and no other.
    own = json.loads(made.here.lock.read_bytes())["images"][1]
    assert {ref: one.id for ref, one in find_archives(site / "images").items()} == {own["ref"]: own["id"]}
    wheels = json.loads(made.here.lock.read_bytes())["wheels"][0]
    names = {path.name for path in (site / "wheels" / f"python{wheels['python']}").iterdir()}
    assert names == {file["filename"] for file in wheels["files"]}
    report = json.loads(next((site / "reports").glob("*.json")).read_bytes())
    assert (report["result"], report["signer"]["principal"]) == ("whole", "me@laptop")


def test_a_second_load_does_nothing(bench: Bench, made: Bench) -> None:
    site = bench.root / "site"
    bench.load(made.root / "bundle", to=site)
    before = {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in site.rglob("*") if "reports" not in str(path)
    }
    assert "nothing new" in bench.load(made.root / "bundle", to=site)
    after = {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in site.rglob("*") if "reports" not in str(path)
    }
    changed = {str(path.relative_to(site)) for path in before if before[path] != after.get(path)}
    assert changed <= {".lock", "."}, changed
    assert set(after) == set(before)


def test_licences_and_what_is_missing(bench: Bench, made: Bench) -> None:
    site = bench.root / "site"
    bench.load(made.root / "bundle", to=site)
    licences = tree(site / "licences" / "all")
    for name in ("alpha", "beta"):
        assert (site / f"licences/all/debian-13-amd64/{name}/copyright").read_text() == "The licence of alpha.\n"
    assert "python/onprem_llm-0.1.0/licenses-LICENSE" in licences
    weights = json.loads(made.here.lock.read_bytes())["weights"][0]["name"]
    assert licences[f"weights/{weights}/LICENSE"] == sha256(made.here.weights["LICENSE"])
    missing = (site / "licences/all/missing.txt").read_text()
    assert "wheel helper 2.0 (its metadata says MIT)" in missing
    assert "image registry.example/image-0:v1" in missing
    assert "alpha" not in missing


def test_the_bill_of_materials_has_everything_and_no_date(made: Bench, bench: Bench) -> None:
    bench.load(made.root / "bundle", to=bench.root / "site")
    bill = json.loads((bench.root / "site" / "sbom.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert "timestamp" not in bill["metadata"]
    purls = {one.get("purl") for one in bill["components"]}
    assert "pkg:deb/debian/alpha@1%3A1.0-1?arch=all&distro=debian-13" in purls
    wheels = json.loads(made.here.lock.read_bytes())["wheels"][0]["files"]
    kinds = sorted(one["type"] for one in bill["components"])
    assert kinds == ["container"] * 2 + ["library"] * (2 + len(wheels)) + ["machine-learning-model"]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt here")
def test_apt_installs_from_the_repository(bench: Bench, made: Bench) -> None:
    site = bench.root / "site"
    bench.load(made.root / "bundle", to=site)
    repository = site / "packages" / "debian-13-amd64"
    state = bench.root / "apt"
    for inner in ("lists/partial", "cache/archives/partial", "parts"):
        (state / inner).mkdir(parents=True)
    (state / "sources.list").write_text(f"deb [signed-by={repository / 'key.asc'}] file:{repository} ./\n")
    (state / "status").touch()
    options = {
        "Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": state / "parts",
        "Dir::State::lists": state / "lists", "Dir::State::status": state / "status", "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root", "Debug::NoLocking": "1",
    }  # fmt: skip
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    updated = subprocess.run([*apt, "update"], check=True, capture_output=True, text=True)
    assert "W:" not in updated.stderr, updated.stderr
    subprocess.run([*apt, "install", "-y", "--download-only", "alpha", "beta"], check=True, capture_output=True)
    shown = subprocess.run([*apt, "--print-uris", "-y", "install", "beta"], check=True, capture_output=True, text=True)
    assert "beta_1%253a1.0-1_all.deb" in shown.stdout or "beta_1%3a1.0-1_all.deb" in shown.stdout, shown.stdout
    # And nothing that was altered since the site signed it.
    (repository / "InRelease").write_text((repository / "InRelease").read_text().replace("trixie", "forky"))
    altered = subprocess.run([*apt, "update"], check=False, capture_output=True, text=True)
    assert "E:" in altered.stderr or "W:" in altered.stderr


def test_the_printed_lines_install_onprem_llm(bench: Bench, bundle: Path) -> None:
    said = bench.create(bundle)
    lines = [line.strip() for line in said.splitlines()]
    (allowed,) = (line for line in lines if line.startswith("me@laptop"))
    (bench.root / "allowed").write_text(allowed + "\n")
    (verify,) = (line for line in lines if line.startswith("ssh-keygen -Y verify"))
    verify = verify.replace("ALLOWED_SIGNERS", str(bench.root / "allowed"))
    done = subprocess.run(["sh", "-c", verify], cwd=bundle, check=True, capture_output=True, text=True)
    assert "Good" in done.stdout
    (install,) = (line for line in lines if "sha256sum -c" in line)
    folder = bench.root / "tool"
    environment = {**os.environ, "HOME": str(bench.root), "PYTHONPATH": ""}
    done = subprocess.run(
        ["sh", "-c", f"{install} {folder}"], cwd=bundle, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Installed: onprem_llm 0.1.0" in done.stdout
    # A wheel that is not what was signed is not installed.
    wheel = json.loads(bench.here.lock.read_bytes())["wheels"][0]["files"][0]["sha256"]
    (bundle / "blobs" / "sha256" / wheel).write_bytes(b"another")
    done = subprocess.run(
        ["sh", "-c", f"{install} {folder}-2"], cwd=bundle, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert "is not what the manifest says" in done.stderr
    assert not Path(f"{folder}-2").exists()


def old_python(root: Path) -> Path:
    """Return a folder with a python3 that says it is 3.6, to be put before all others."""
    tools = root / "bin"
    tools.mkdir()
    (tools / "python3").write_text("#!/bin/sh\necho 3.6\n")
    (tools / "python3").chmod(0o755)
    return tools


def installed(bundle: Path, root: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    """Run the bundle's install.sh where `tools` come before the system's own."""
    install = next(b["sha256"] for b in manifest_of(bundle)["blobs"] if b["role"] == "install")  # type: ignore[attr-defined]
    environment = {"HOME": str(root), "PATH": f"{tools}:/usr/bin:/bin", "TMPDIR": str(root)}
    command = ["sh", str(bundle / "blobs" / "sha256" / install), str(root / "tool")]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def test_an_old_python_is_named_in_one_line(made: Bench, tmp_path: Path) -> None:
    # Wheels for a Python that no machine has: the system's own newer ones must not pass for it.
    bench = Bench(tmp_path, Connected(tmp_path / "here", packages=(), pythons=("3.99",)).make(), made.keys)
    bench.create(tmp_path / "bundle")
    done = installed(tmp_path / "bundle", tmp_path, old_python(tmp_path))
    assert done.returncode == 1
    assert "python3 is 3.6, and no other was found; the bundle has wheels for: 3.99" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "tool").exists()


def test_beside_an_old_python_one_that_the_bundle_has_wheels_for_is_used(bench: Bench, bundle: Path) -> None:
    python = json.loads(bench.here.lock.read_bytes())["wheels"][0]["python"]
    tools = old_python(bench.root)
    (tools / f"python{python}").symlink_to(Path(sys.executable).resolve())
    done = installed(bundle, bench.root, tools)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"using python{python}" in done.stdout
    assert "Installed: onprem_llm 0.1.0" in done.stdout


def test_inspect_reads_no_blob(bench: Bench, bundle: Path) -> None:
    shutil.rmtree(bundle / "blobs")
    began = time.monotonic()
    found = json.loads(bench.run("inspect", bundle, "--json", "--allowed-signers", bench.keys.allowed))
    assert time.monotonic() - began < 10
    assert found["roles"]["weights"]["blobs"] >= 5
    assert [one["ref"] for one in found["images"]] == ["registry.example/image-0:v1", "registry.example/image-1:v1"]
    assert "amd64 trixie 6.12.1-amd64 debian 13" in bench.run("inspect", bundle)


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_weights_that_were_pulled_from_a_hub(made: Bench, tmp_path: Path, hub: str) -> None:
    bench = Bench(tmp_path, Connected(tmp_path / "here", source=hub, packages=()).make(), made.keys)
    bench.create(tmp_path / "bundle")
    bench.load(tmp_path / "bundle", to=tmp_path / "site")
    assert tree(next((tmp_path / "site").glob("weights/*/Tiny"))) == tree(bench.here.model)
