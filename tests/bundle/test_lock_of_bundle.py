"""The lock in a bundle is read before anything is written: what it is for, and whether we can read it."""

import json
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, sha256, tree
from tests.bundle.test_refused import blob_of, sign_again
from tests.made_facts import host_facts


def test_a_lock_of_a_newer_tool_in_a_manifest_that_we_know(bench: Bench, bundle: Path, made: Bench) -> None:
    """Nothing is written of what cannot be read to its end, in a new site's folder or in one that works."""
    old = blob_of(bundle, "lock")
    data = json.dumps({**json.loads(old.read_bytes()), "schema_version": 2, "something": "new"}).encode()
    old.unlink()
    (old.parent / sha256(data)).write_bytes(data)

    def change(value: dict[str, object]) -> None:
        blobs: list[dict[str, object]] = value["blobs"]  # type: ignore[assignment]
        next(blob for blob in blobs if blob["role"] == "lock").update(sha256=sha256(data), size=len(data))
        value.update(lock_sha256=sha256(data), blobs=sorted(blobs, key=lambda blob: str(blob["sha256"])))

    sign_again(bench, bundle, change)
    for site in (bench.root / "new", bench.root / "site"):
        if site.name == "site":
            bench.load(made.root / "bundle", to=site)
        before = tree(site) if site.exists() else {}
        said = bench.load(bundle, to=site, status=3)
        assert f"{sha256(data)} (the lock): made by a newer onprem-llm: found schema_version 2" in said
        assert "a bundle carries the one that made it" in said
        assert (tree(site) if site.exists() else {}) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"os": {"id": "debian", "version_id": "12", "codename": "bookworm"}}, "found debian 12, and the lock has"),
        ({"architecture": "aarch64"}, "found linux/arm64, and the lock is for linux/amd64"),
        ({"kernels": {"running": "6.12.2-amd64", "installed": []}}, "found the kernel 6.12.2-amd64, which runs"),
        ({"gpus": [{"name": "NVIDIA H100", "memory_bytes": None, "pci_id": None}], "driver": "535.183.01"},
         "gpu-1: driver 535.183.01 cannot run vllm/vllm-openai:v0.20.2"),
        ({"gpus": [{"name": "NVIDIA H100", "memory_bytes": None, "pci_id": None}], "driver": "580.95.05"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_made_for_other_hosts(bench: Bench, bundle: Path, change: dict[str, object], said: str) -> None:
    hosts = {"gpu-1": host_facts(**change)}
    (bench.root / "facts.json").write_text(json.dumps({"schema_version": 1, "hosts": hosts}))
    arguments = ("load", bundle, "--to", bench.root / "site", "--allowed-signers", bench.keys.allowed, "--facts")
    found = bench.run(*arguments, bench.root / "facts.json", status=3 if said else 0)
    assert said in found
    assert (bench.root / "site").exists() == (not said)
