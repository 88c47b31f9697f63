"""Holding packages and letting them go while somebody else has dpkg's lock."""

import pytest

LOCKED = "dpkg: error: dpkg frontend lock was locked by /usr/bin/unattended-upgrade process with pid 7"


@pytest.fixture
def said(driver, monkeypatch):
    """What apt-mark answers, one after the other, and what it was asked."""
    answers, asked = [], []

    def run(argv, *_):
        if "showhold" in argv:
            return 0, "libcuda1\nlinux-image-amd64\nnvidia-smi\nnvidia-container-toolkit"
        asked.append(" ".join(argv[2:]))
        return answers.pop(0)

    monkeypatch.setattr(driver.apt, "run", run)
    monkeypatch.setattr(driver.apt.time, "sleep", lambda _: None)
    return answers, asked


def test_the_lock_is_waited_for_and_kernels_stay_held(driver, host, said):
    answers, asked = said
    answers += [(100, LOCKED), (100, LOCKED), (0, "")]
    driver.apt.Apt(host(), {}, None).let_go()
    assert asked == ["apt-mark unhold libcuda1 nvidia-smi"] * 3


def test_what_is_no_lock_is_told_at_once(driver, host, said):
    answers, asked = said
    answers += [(100, "E: no space")]
    with pytest.raises(driver.apt.PackageError, match=r"libcuda1, nvidia-smi could not be set to unhold.*\n.*no space"):
        driver.apt.Apt(host(), {}, None).let_go()
    assert len(asked) == 1


def test_a_lock_that_stays_is_told_in_the_end(driver, host, said, monkeypatch):
    clock = iter((0.0, 100.0, 301.0))
    monkeypatch.setattr(driver.apt.time, "monotonic", lambda: next(clock))
    said[0].extend([(100, LOCKED), (100, LOCKED)])
    with pytest.raises(driver.apt.PackageError, match="unattended-upgrade process with pid 7"):
        driver.apt.Apt(host(), {}, None).let_go()
