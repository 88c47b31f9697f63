"""A lock's packages through a bundle to a host of the RHEL family: the real dnf installs what was loaded."""

import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from tests.dnf.conftest import TOOLKIT, Mirrors
from tests.dnf.test_lock import BASE, DRIVER, H100, ROCKY, RUNNING
from tests.locking.registry import running
from tests.locking.site import Site, made
from tests.made_facts import host_facts
from tests.made_rpms import end_agents
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture

from onprem_llm.errors import InvalidError
from onprem_llm.main import cli
from onprem_llm.package_trees import REPOSITORY_FILE, PackageTrees, read_tree

TREE = "rocky-9.6-amd64"
ENDING = (
    "--setopt=reposdir={0}/etc/yum.repos.d", "--installroot={0}", "--setopt=cachedir={0}/cache", "--releasever=9.6",
    "--setopt=module_platform_id=platform:el9", "--noplugins", "--assumeyes", "--setopt=varsdir={0}/none",
)  # fmt: skip


@pytest.fixture(scope="module")
def connected(mirrors: Mirrors, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A machine with a lock of a host with GPUs and NVSwitches, and its bundle."""
    folder = tmp_path_factory.mktemp("connected")
    with pytest.MonkeyPatch.context() as patch, running(tmp_path_factory.mktemp("registry")) as registry:
        patch.setenv("ONPREM_LLM_CACHE", str(folder / "cache"))
        site = made(folder / "desk", registry)
        site.write_facts(gpu1=host_facts(os=ROCKY, kernels=RUNNING, gpus=[H100] * 8, nvswitches=4))
        named = [word for name, url in mirrors.named.items() for word in ("--package-mirror", f"{name}={url}")]
        named += [word for name, file in mirrors.keys.items() for word in ("--package-key", f"{name}={file}")]
        site.lock(site.model(), more=named, skip=("wheels",))
        key = site.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (site.folder / "allowed").write_text(f'us namespaces="onprem-llm-bundle" {key.with_suffix(".pub").read_text()}')
        run("bundle", "create", "--lock", site.out, "-o", site.folder / "bundle", "--sign-key", key)
    return site


def run(*words: object) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def loaded(connected: Site, tmp_path: Path) -> Path:
    """The site's folder."""
    site = tmp_path / "site"
    run("bundle", "load", connected.folder / "bundle", "--to", site, "--allowed-signers", connected.folder / "allowed",
        "--facts", connected.facts)  # fmt: skip
    return site


class Host:
    """A folder that stands for a host's root, with what the role package_repository puts there."""

    def __init__(self, root: Path, tree: Path, module: ModuleType) -> None:
        self.root, self.packages, self.module = root, root / "srv/packages", module
        self.sources = root / REPOSITORY_FILE.lstrip("/")
        self.sources.parent.mkdir(parents=True)
        shutil.copytree(tree, self.packages)
        self.files = [dict(one) for one in read_tree(tree).files]
        self.present()

    def present(self) -> bool:
        changed: bool = self.module.present(self.packages, self.files, self.sources, False)
        return changed

    def dnf(self, *words: str) -> subprocess.CompletedProcess[str]:
        options = [one.format(self.root) for one in ENDING]
        (self.root / "dnf.conf").write_text("[main]\n")
        home = {"HOME": str(self.root / "home"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        (self.root / "home").mkdir(exist_ok=True)
        (self.root / "home/.rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
        argv = ["dnf", f"--config={self.root}/dnf.conf", f"--forcearch={platform.machine()}", *options, *words]
        try:
            return subprocess.run(argv, capture_output=True, text=True, check=False, env=home)
        finally:
            end_agents(*self.root.glob("cache/*/pubring"))

    def installed(self) -> set[str]:
        argv = ["rpm", "--root", str(self.root), "--dbpath", "/var/lib/rpm", "-qa", "--queryformat", "%{NAME}\\n"]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture
def host(loaded: Path, tmp_path: Path, role_module: Callable[[str], ModuleType]) -> Host:  # noqa: F811
    return Host(tmp_path / "host", loaded / "packages" / TREE, role_module("package_repository"))


def test_a_host_installs_all_of_it_from_the_bundle_alone(host: Host) -> None:
    text = host.sources.read_text()
    assert "repo_gpgcheck=1" in text
    done = host.dnf("install", "docker-ce", "iperf3", "nftables", "openssl", "rsync", "kmod-nvidia-open-dkms",
                    "nvidia-driver-cuda", "nvidia-fabric-manager-580.95.05")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    done = host.dnf("install", *(f"{name}-1.18.2-1" for name in TOOLKIT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(TOOLKIT) <= host.installed()
    assert host.installed() - {"gpg-pubkey"} >= (BASE | DRIVER | {"nvidia-fabric-manager"}) - {
        "python3-dnf-plugin-versionlock", "kernel-headers", "nvidia-persistenced"
    }  # fmt: skip
    assert host.present() is False


@pytest.mark.parametrize("name", ["repodata/repomd.xml", "repodata/repomd.xml.asc"])
def test_an_altered_or_unsigned_index_is_refused(host: Host, name: str) -> None:
    path = host.packages / name
    if name.endswith(".asc"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"<revision>1", b"<revision>2"))
    done = host.dnf("install", "rsync")
    assert done.returncode != 0
    assert "rsync" not in host.installed()


def test_an_altered_package_is_refused(host: Host) -> None:
    (path,) = host.packages.glob("pool/rsync-*.rpm")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert host.dnf("install", "rsync").returncode != 0
    assert "rsync" not in host.installed()


def test_a_repository_that_another_signed_is_refused(host: Host, loaded: Path, tmp_path: Path) -> None:
    """Its key beside it makes no difference: the host's source names the file, which bootstrap sent."""
    from onprem_llm.package_signing import sign_repository

    key = (host.packages / "key.asc").read_bytes()
    assert sign_repository(host.packages, tmp_path / "stranger") is True
    (host.packages / "key.asc").write_bytes(key)
    assert host.dnf("install", "rsync").returncode != 0


def test_bootstrap_finds_the_repository_of_a_hosts_release(loaded: Path) -> None:
    trees = PackageTrees(loaded / "packages")
    tree = trees.for_host("rocky", "9.6", "x86_64")
    order = tree.order("/srv/onprem-llm")
    assert order["sources_file"] == REPOSITORY_FILE
    paths = {str(one["path"]) for one in tree.files}
    assert {"repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/primary.xml", "key.asc"} <= paths
    assert len([path for path in paths if path.endswith(".rpm")]) == len(list((tree.source / "pool").iterdir()))
    with pytest.raises(InvalidError, match=f"found {TREE} in .*, expected rocky-9.5-amd64"):
        trees.for_host("rocky", "9.5", "x86_64")
    (tree.source / "repodata/repomd.xml.asc").unlink()
    with pytest.raises(InvalidError, match=r"not signed: found no repodata/repomd\.xml\.asc"):
        read_tree(tree.source)


def test_a_second_load_changes_nothing(loaded: Path, connected: Site) -> None:
    tree = loaded / "packages" / TREE
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    words = ("--to", loaded, "--allowed-signers", connected.folder / "allowed", "--facts", connected.facts)
    run("bundle", "load", connected.folder / "bundle", *words)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_the_same_lock_makes_the_same_bundle_and_its_parts_are_named(
    connected: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(connected.folder.parent / "cache"))
    key = connected.folder / "key"
    run("bundle", "create", "--lock", connected.out, "-o", tmp_path / "again", "--sign-key", key)
    manifest = (tmp_path / "again/manifest.json").read_bytes()
    assert manifest == (connected.folder / "bundle/manifest.json").read_bytes()
    (bill,) = [one for one in json.loads(manifest)["blobs"] if one["role"] == "sbom"]
    text = (tmp_path / "again/blobs/sha256" / bill["sha256"]).read_text()
    assert "pkg:rpm/rocky/docker-ce@28.5.1-1.el9?arch=x86_64&distro=rocky-9.6&epoch=3" in text
