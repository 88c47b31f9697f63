"""Bundles over several media: each volume by itself, in any order, one missing, one damaged."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.bundle.kit import MB, Bench, Connected, flip, tree, weights_files

SIZE = 2 * MB


@pytest.fixture(scope="session")
def split(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bundle in volumes, with a blob of more than two of them."""
    root = tmp_path_factory.mktemp("split")
    weights = {**weights_files(), "model-3.safetensors": weights_files(5 * MB)["model-3.safetensors"]}
    bench = Bench(root, Connected(root / "here", weights=weights).make(), made.keys)
    bench.create(root / "bundle", "--volume-size", "2MB")
    return bench


@pytest.fixture
def volumes(split: Bench, tmp_path: Path) -> list[Path]:
    """The volumes, each as if on a medium of its own."""
    return [
        Path(shutil.copytree(path, tmp_path / f"medium-{number}" / path.name))
        for number, path in enumerate(sorted((split.root / "bundle").iterdir()))
    ]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_volumes_are_as_large_as_asked_for(split: Bench) -> None:
    folders = sorted((split.root / "bundle").iterdir())
    assert [path.name for path in folders] == [f"vol-{number:03}" for number in range(1, len(folders) + 1)]
    sizes = [size_of(path) for path in folders]
    assert all(size <= SIZE for size in sizes)
    assert sum(sizes) < split_size(split) + len(folders) * 200_000
    manifest = json.loads((folders[0] / "manifest.json").read_bytes())
    cut = {blob["names"][0].rpartition("/")[2]: len(blob["parts"]) for blob in manifest["blobs"] if blob["parts"]}
    assert cut["model-3.safetensors"] == 3
    assert "model-1.safetensors" not in cut


def split_size(split: Bench) -> int:
    return sum(map(len, split.here.weights.values())) + sum(
        path.stat().st_size for path in (split.here.blobs).iterdir()
    )  # fmt: skip


def test_the_same_again(split: Bench, tmp_path: Path) -> None:
    split.create(tmp_path / "again", "--volume-size", "2000000")
    subprocess.run(["diff", "-r", split.root / "bundle", tmp_path / "again"], check=True)
    assert "nothing to do" in split.create(tmp_path / "again", "--volume-size", "2MB")


def test_each_volume_alone_in_any_order(split: Bench, volumes: list[Path], site: Path) -> None:
    left = [path.name for path in volumes]
    for volume in [*volumes[2:], *reversed(volumes[:2])]:
        assert volume.name not in split.verify(volume).partition("not looked at")[2]
        said = split.load(volume, to=site)
        left.remove(volume.name)
        assert all(name in said for name in left)
        assert ("holds the bundle" in said) == (not left)
        assert bool(list(site.glob("weights/*"))) == (not left)
    assert tree(next(site.glob("weights/*/Tiny"))) == tree(split.here.model)
    assert "nothing new" in split.load(*volumes, to=site)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1::2])
def test_wrong_order_on_one_command_line(split: Bench, volumes: list[Path], site: Path, order: tuple[int, ...]) -> None:
    split.load(*(volumes[number] for number in order), *volumes[3:], to=site)
    assert tree(next(site.glob("weights/*/Tiny"))) == tree(split.here.model)


def test_a_missing_volume_is_named(split: Bench, volumes: list[Path], site: Path) -> None:
    together = volumes[0].parent.parent / "together"
    for volume in volumes:
        if volume.name != "vol-002":
            shutil.copytree(volume, together / volume.name)
    said = split.verify(together, status=3)
    assert "volumes are missing: vol-002" in said
    assert "volumes are missing: vol-002" in split.load(together, to=site, status=3)
    assert not site.exists()
    # Named one by one, they are loaded, and what is missing is said.
    assert "Still to come: vol-002" in split.load(*together.iterdir(), to=site)
    split.load(volumes[1], to=site)
    assert list(site.glob("weights/*/Tiny"))


def test_volumes_of_two_bundles_are_not_mixed(split: Bench, volumes: list[Path], made: Bench, site: Path) -> None:
    assert "of different bundles" in split.load(volumes[0], made.root / "bundle", to=site, status=3)


def test_a_volume_that_says_it_is_another(split: Bench, volumes: list[Path]) -> None:
    (volumes[0] / "volume.json").write_text('{"volume": "vol-002"}\n')
    said = split.verify(volumes[0], status=5)
    assert "found nothing" in said
    (volumes[0] / "volume.json").write_text('{"volume": "../../x"}\n')
    assert "found no volume of this bundle" in split.verify(volumes[0], status=3)


def test_a_flipped_bit_in_a_part(split: Bench, volumes: list[Path], site: Path) -> None:
    manifest = json.loads((volumes[0] / "manifest.json").read_bytes())
    cut = next(blob for blob in manifest["blobs"] if blob["names"][0].endswith("model-3.safetensors"))
    part = cut["parts"][1]["sha256"]
    (path,) = (found for volume in volumes for found in volume.glob(f"blobs/sha256/{part}"))
    good = path.read_bytes()
    flip(path)
    assert "model-3.safetensors, part 2 of 3" in split.verify(*volumes, status=5)
    said = split.load(*volumes, to=site, status=5)
    assert "model-3.safetensors, part 2" in said
    assert not list(site.glob("weights/*"))
    path.write_bytes(good)
    split.load(*volumes, to=site)
    assert tree(next(site.glob("weights/*/Tiny"))) == tree(split.here.model)


def test_a_size_that_cannot_be(split: Bench, tmp_path: Path) -> None:
    assert "expected a size such as 4GB" in split.create(tmp_path / "x", "--volume-size", "large", status=2)
    assert "of which the manifest takes" in split.create(tmp_path / "x", "--volume-size", "40kB", status=2)
    assert not (tmp_path / "x" / "manifest.json").exists()


def test_a_source_that_changed_since_the_lock(tmp_path: Path, made: Bench) -> None:
    weights = {**weights_files(1000), "model-3.safetensors": weights_files(5 * MB)["model-3.safetensors"]}
    bench = Bench(tmp_path, Connected(tmp_path / "here", weights=weights, packages=()).make(), made.keys)
    source = bench.here.model / "model-3.safetensors"
    data = source.read_bytes()
    flip(source)
    said = bench.create(tmp_path / "bundle", "--volume-size", "4MB", status=5)
    assert f"{source}: found sha256" in said
    assert "its creation was cut off" in bench.verify(tmp_path / "bundle", status=3)
    # What was written of it is not taken for what it should be.
    source.write_bytes(data)
    bench.create(tmp_path / "bundle", "--volume-size", "4MB")
    bench.verify(tmp_path / "bundle")
