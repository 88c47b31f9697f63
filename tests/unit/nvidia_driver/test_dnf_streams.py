"""What dnf says of NVIDIA's streams, and which version of one is taken."""

import pytest

INFO = """\
Name             : nvidia-driver
Artifacts        : kmod-nvidia-open-dkms-3:580.65.06-1.el9.x86_64
                 : nvidia-driver-cuda-3:580.65.06-1.el9.x86_64
                 : nvidia-driver-cuda-3:580.105.08-1.el9.x86_64
                 : nvidia-driver-cuda-3:580.95.05-1.el9.x86_64
                 : nvidia-fabric-manager-0:580.105.08-1.el9.x86_64
"""


@pytest.mark.parametrize(
    ("pattern", "version"),
    [(None, "580.105.08"), ("580.*", "580.105.08"), ("580.65.06*", "580.65.06"), ("580.82.07*", "580.105.08")],
)
def test_the_newest_or_the_one_that_is_asked_for(driver, host, monkeypatch, pattern, version):
    def said(argv, *_):
        words = " ".join(argv)
        return 0, "nvidia-driver 580-open default [d] Nvidia driver" if "list" in words else INFO

    monkeypatch.setattr(driver.dnf, "run", said)
    hands = driver.dnf.Dnf(host(os="rocky", version="9.6"), {}, None)
    if pattern is None:
        assert hands.offered()["nvidia-driver:580-open"] == version
        return
    with hands.pinned(pattern):
        assert hands.offered()["nvidia-driver:580-open"] == version


BROUGHT = "\n".join(
    f"{name}\t{version}"
    for version in ("580.105.08", "580.65.06", "580.95.05")
    for name in ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-fabric-manager")
)


@pytest.mark.parametrize(
    ("pattern", "version"), [("580.*", "580.105.08"), ("580.65.06*", "580.65.06"), ("580.82.07*", "580.105.08")]
)
def test_a_bundle_may_have_several_versions_of_a_branch(driver, host, monkeypatch, pattern, version):
    monkeypatch.setattr(driver.dnf, "run", lambda argv, *_: (0, BROUGHT if "nvidia-*" in argv else ""))
    hands = driver.dnf.Dnf(host(os="rocky", version="9.6"), {}, "/packages")
    with hands.pinned(pattern):
        offered = hands.offered()
    assert offered["nvidia-driver:580-open"] == version
    assert offered["nvidia-fabric-manager@580-open"] == version
