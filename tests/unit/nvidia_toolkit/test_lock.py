"""What a lock takes of the toolkit: what bootstrap would choose from the same mirrors."""

from collections.abc import Mapping, Sequence

from onprem_llm.locking.driver_packages import GpuHost
from onprem_llm.locking.toolkit_packages import by_apt, by_dnf
from onprem_llm.spec.site import NvidiaContainerToolkit

HOSTS = (GpuHost(("a", "b"), (0x2330,), "6.12.9", "6.12.9"),)
NAMES = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip


def madison(argv: Sequence[str]) -> str:
    assert list(argv) == ["apt-cache", "madison", *NAMES]
    rows = [(name, version) for name in NAMES for version in ("1.18.2-1", "1.17.8-1")]
    return "\n".join(f" {name} | {version} | https://mirror.local/stable/deb/amd64  Packages" for name, version in rows)


def test_the_newest_or_the_wished_version() -> None:
    assert by_apt(HOSTS, NvidiaContainerToolkit(), madison) == ([f"{name}=1.18.2-1" for name in NAMES], ())
    names, _ = by_apt(HOSTS, NvidiaContainerToolkit(version="1.17.8"), madison)
    assert names[0] == "nvidia-container-toolkit=1.17.8-1"


def look(names: Sequence[str]) -> Mapping[str, str]:
    newest = dict.fromkeys(NAMES, "0:1.18.2-1")
    return {one: "1.17.8-1" if one.endswith("-1.17.8") else newest[one] for one in names}


def test_the_same_by_dnf() -> None:
    assert by_dnf(HOSTS, NvidiaContainerToolkit(), look) == ([f"{name}-1.18.2-1" for name in NAMES], ())
    names, _ = by_dnf(HOSTS, NvidiaContainerToolkit(version="1.17.8"), look)
    assert names == [f"{name}-1.17.8-1" for name in NAMES]
    assert by_dnf(HOSTS, NvidiaContainerToolkit(), lambda _: {})[0] == []


def test_none_where_none_is_wanted() -> None:
    assert by_apt((), NvidiaContainerToolkit(), madison) == ([], ())
    assert by_apt(HOSTS, NvidiaContainerToolkit(install=False), madison) == ([], ())


def test_what_no_mirror_has_is_said_with_the_hosts_that_go_without() -> None:
    names, [note] = by_apt(HOSTS, NvidiaContainerToolkit(), lambda _: "")
    assert names == []
    assert note.startswith("a, b: no NVIDIA Container Toolkit in this bundle: found no nvidia-container-toolkit in")
    assert "--package-mirror nvidia_container_toolkit=URL" in note
