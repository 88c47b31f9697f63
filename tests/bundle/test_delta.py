"""What a site has already does not travel again."""

import json
import shutil
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, tree, weights_files
from tests.made_weights import random_safetensors


@pytest.fixture
def newer(bench: Bench, made: Bench, tmp_path: Path) -> Bench:
    """The machine a month later: one file of the weights is another."""
    weights = {**made.here.weights, "config.json": b'{"architectures": ["OtherForCausalLM"]}'}
    return Bench(tmp_path, Connected(tmp_path / "later", weights=weights).make(), bench.keys)


def carried(folder: Path) -> set[str]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return {name for blob in manifest["blobs"] if blob["carried"] for name in blob["names"]}


def test_a_delta_brings_what_is_new(newer: Bench, made: Bench) -> None:
    site, have = newer.root / "site", newer.root / "have.json"
    newer.load(made.root / "bundle", to=site)
    newer.run("have", site, "-o", have)
    newer.create(newer.root / "delta", "--have", have)
    names = {name.partition("/")[2].partition("/")[2] for name in carried(newer.root / "delta") if "weights" in name}
    assert names == {"Tiny/config.json"}
    newer.verify(newer.root / "delta")
    newer.load(newer.root / "delta", to=site)
    name = json.loads(newer.here.lock.read_bytes())["weights"][0]["name"]
    assert tree(site / "weights" / name / "Tiny") == tree(newer.here.model)
    assert (site / "onprem-llm.lock").read_bytes() == newer.here.lock.read_bytes()
    # The next one adds to this one.
    newer.run("have", site, "-o", have)
    newer.create(newer.root / "nothing", "--have", have)
    assert {name.partition("/")[0] for name in carried(newer.root / "nothing")} == {
        "install.sh", "onprem-llm.lock", "sbom.json",
    }  # fmt: skip


def test_have_of_a_bundle_is_that_of_its_site(newer: Bench, made: Bench) -> None:
    newer.load(made.root / "bundle", to=newer.root / "site")
    newer.run("have", newer.root / "site", "-o", newer.root / "a.json")
    newer.run("have", made.root / "bundle", "-o", newer.root / "b.json")
    assert (newer.root / "a.json").read_bytes() == (newer.root / "b.json").read_bytes()


def test_without_its_base_nothing_is_touched(newer: Bench, made: Bench) -> None:
    newer.run("have", made.root / "bundle", "-o", newer.root / "have.json")
    newer.create(newer.root / "delta", "--have", newer.root / "have.json")
    base = json.loads((newer.root / "delta" / "manifest.json").read_bytes())["base"]
    site = newer.root / "site"
    said = newer.load(newer.root / "delta", to=site, status=3)
    assert f"adds to another one, {base}, which was not loaded here" in said
    assert [path.name for path in site.iterdir()] == [".lock"]
    # Nor where the base is there in part.
    newer.load(made.root / "bundle", to=site)
    before = tree(site)
    lost = next((site / "weights").glob("*/Tiny/model-2.safetensors"))
    blob = site / "blobs" / "sha256" / before[str(lost.relative_to(site))]
    blob.unlink()
    said = newer.load(newer.root / "delta", to=site, status=3)
    assert "model-2.safetensors" in said
    assert "are gone" in said
    before.pop(str(blob.relative_to(site)))
    assert {n: s for n, s in tree(site).items() if n != ".lock"} == {n: s for n, s in before.items() if n != ".lock"}


def test_a_delta_in_volumes(newer: Bench, made: Bench) -> None:
    later = {**weights_files(), "model-1.safetensors": random_safetensors(5_000_000, 77)}
    newer.here = Connected(newer.root / "third", weights=later).make()
    site = newer.root / "site"
    newer.load(made.root / "bundle", to=site)
    newer.run("have", site, "-o", newer.root / "have.json")
    newer.create(newer.root / "delta", "--have", newer.root / "have.json", "--volume-size", "2MB")
    for volume in sorted((newer.root / "delta").iterdir(), reverse=True):
        newer.load(volume, to=site)
    name = json.loads(newer.here.lock.read_bytes())["weights"][0]["name"]
    assert tree(site / "weights" / name / "Tiny") == tree(newer.here.model)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "this is not"), ('{"schema_version": 9}', "made by a newer onprem-llm"), ('{"schema_version": 1}', "base")],
)
def test_a_have_json_that_is_none(bench: Bench, text: str, said: str) -> None:
    (bench.root / "have.json").write_text(text)
    assert said in bench.create(bench.root / "out", "--have", bench.root / "have.json", status=3)


def test_nothing_was_loaded_yet(bench: Bench) -> None:
    (bench.root / "site").mkdir()
    (bench.root / "site" / "site.json").write_text('{"schema_version": 1, "loaded": []}')
    assert "nothing was loaded yet" in bench.run("have", bench.root / "site", status=3)
    shutil.rmtree(bench.root / "site")
