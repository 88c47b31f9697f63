"""What a lab writes on the control host, and what decides its image, subnet and mirror."""

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from onprem_llm.errors import OnpremError, RefusedError, UsageError
from onprem_llm.lab import image, inventory, lifecycle, network, state
from onprem_llm.lab.lifecycle import Wanted
from onprem_llm.lab.state import Host, Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    return Lab(
        name="lab",
        os="debian-13",
        ready=False,
        driver="580.95.05",
        memory=None,
        subnet="10.213.4.0/24",
        inventory=str(tmp_path / "inventory.ini"),
        hosts=state.plan_hosts("lab", "10.213.4.0/24", ["2xL4-24GB", None]),
    )


def test_inventory_text(lab: Lab) -> None:
    assert inventory.text(lab) == (
        "# Written by `onprem-llm lab up` for lab lab; `onprem-llm lab down --name lab` removes it.\n"
        "[rehearsal]\n"
        "lab-1 ansible_host=10.213.4.11\n"
        "lab-2 ansible_host=10.213.4.12\n"
        "\n"
        "[gpu]\n"
        "lab-1\n"
        "\n"
        "[rehearsal:vars]\n"
        "ansible_user=ops\n"
        "ansible_ssh_private_key_file=/state/onprem-llm/lab/lab/id_ed25519\n"
        "ansible_ssh_common_args=-o 'UserKnownHostsFile=\"/state/onprem-llm/lab/lab/known_hosts\"' "
        "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes\n"
        "ansible_python_interpreter=/usr/bin/python3\n"
    )


def test_a_lab_without_gpus_has_no_gpu_group(lab: Lab) -> None:
    assert "[gpu]" not in inventory.text(replace(lab, hosts=state.plan_hosts("lab", lab.subnet, [None])))


def test_inventory_is_written_once_and_removed(lab: Lab) -> None:
    path = Path(lab.inventory)
    assert inventory.write(lab)
    assert not inventory.write(lab)
    inventory.check_writable(path, "lab")
    assert inventory.remove(lab)
    assert not path.exists()


def test_a_write_that_is_cut_off_leaves_no_half_inventory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would be nobody's: no lab could be made there again."""

    def cut(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onprem_llm.whole_files.os.fsync", cut)
    with pytest.raises(KeyboardInterrupt):
        inventory.write(lab)
    assert not Path(lab.inventory).exists()
    monkeypatch.undo()
    inventory.check_writable(Path(lab.inventory), lab.name)
    assert inventory.write(lab)


@pytest.mark.parametrize("text", ["[gpu]\nserver1\n", "# Written by `onprem-llm lab up` for lab other; ...\n"])
def test_somebody_elses_inventory_stays(lab: Lab, text: str) -> None:
    path = Path(lab.inventory)
    path.write_text(text, "utf-8")
    with pytest.raises(OnpremError, match="it stays as it is"):
        inventory.check_writable(path, "lab")
    assert not inventory.remove(lab)
    assert path.read_text("utf-8") == text


def test_state_survives_and_is_private(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    state.save(lab)
    assert state.load("lab") == lab
    assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700
    assert state.names() == ["lab"]
    state.remove("lab")
    assert not (tmp_path / "state" / "onprem-llm").exists()


def test_one_command_at_a_time(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with state.locked("lab"), pytest.raises(RefusedError, match="at work"), state.locked("lab"):
        pass
    with state.locked("lab"), state.locked("other"):
        state.save(lab)
    assert state.names() == ["lab"]
    with state.locked("lab"):
        state.remove("lab")


def test_a_lock_leaves_nothing_where_nothing_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(KeyboardInterrupt), state.locked("lab"):
        raise KeyboardInterrupt
    assert not (tmp_path / "state" / "onprem-llm").exists()


def test_a_broken_state_says_how_to_go_on(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    state.save(lab)
    (lab.folder / "lab.json").write_text("{", "utf-8")
    with pytest.raises(OnpremError) as caught:
        state.load("lab")
    assert caught.value.hint == "remove the lab and make it anew: onprem-llm lab down --name lab"


@pytest.mark.parametrize("name", ["Lab", "a_b", "9", "lab-", "x" * 31, "../x"])
def test_names_must_be_fit_for_hosts(name: str) -> None:
    with pytest.raises(UsageError):
        state.folder(name)


def test_host_by_name_and_number(lab: Lab) -> None:
    assert lab.host("lab-2") == lab.host("2") == Host("lab-2", "10.213.4.12", None)
    with pytest.raises(UsageError, match="no host 'lab-3'"):
        lab.host("lab-3")


def test_free_subnet_avoids_what_overlaps() -> None:
    assert network.free_subnet([]) == "10.213.0.0/24"
    assert network.free_subnet(["10.213.0.0/24", "10.213.1.128/25", "172.17.0.0/16", "fd00::/64"]) == "10.213.2.0/24"
    with pytest.raises(OnpremError, match=r"no free /24 in 10\.213\.0\.0/16"):
        network.free_subnet(["10.208.0.0/12"])


def test_two_labs_made_at_once_get_two_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def nothing_is_taken() -> list[str]:
        time.sleep(0.2)  # Docker hears of a network only after the image is built.
        return []

    monkeypatch.setattr(network, "taken_subnets", nothing_is_taken)
    monkeypatch.setattr(lifecycle, "_refuse_strangers", lambda _: None)
    monkeypatch.setattr(lifecycle.image, "ensure", lambda *_: "image")
    monkeypatch.setattr(lifecycle, "_make_hosts", lambda *_: True)
    monkeypatch.setattr(lifecycle.hosts, "public_keys", lambda _: [])
    monkeypatch.setattr(lifecycle.engine, "client", lambda: None)

    def up(name: str) -> str:
        wanted = Wanted(name, 1, (), "debian-13", False, tmp_path / f"{name}.ini", None, None)
        return lifecycle.up(wanted, print)[0].subnet

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(up, ["one", "two"])) == ["10.213.0.0/24", "10.213.1.0/24"]


def test_digest_changes_with_content_and_path() -> None:
    files = {"Dockerfile": b"FROM a", "sources": b"x"}
    before = image.digest(files)
    assert before == image.digest(dict(reversed(files.items())))
    assert (
        len({before, image.digest({**files, "sources": b"y"}), image.digest({"Dockerfile": b"FROM a", "s": b"x"})}) == 3
    )
    assert image.tag("debian-13", True, files) == f"onprem-llm/lab-host:debian-13-{before}-ready"
