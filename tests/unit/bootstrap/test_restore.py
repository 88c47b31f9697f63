"""Uninstall's module on a made-up host: what it runs, what it leaves alone."""

import json

import pytest

SIMULATED = "Remv docker.io [1]\nRemv rsync [3]\n"


@pytest.fixture
def host(role_module, tmp_path, monkeypatch):
    """A host that bootstrap gave docker and rsync; `commands` are those that were run."""
    module = role_module("container_engine_restore")
    record = module.record_part
    data = tmp_path / "docker"
    data.mkdir()
    (data / "image").touch()
    (tmp_path / "daemon.json").write_text('{"live-restore": true}')
    monkeypatch.setattr(record, "RECORD", tmp_path / "bootstrap.json")
    monkeypatch.setattr(module, "DAEMON", tmp_path / "daemon.json")
    monkeypatch.setattr(module, "NUKE", data / "nuke-graph-directory.sh")
    monkeypatch.setattr(module, "DATA", (str(data),))
    monkeypatch.setattr(module, "OURS", ())
    monkeypatch.setattr(module, "CERTIFICATES", {})
    module.NUKE.touch()
    record.save(
        {
            "packages": ["docker.io", "rsync"],
            "daemon": {"before": None, "mode": None, "ours": {"live-restore": True}},
            "absent": [str(data), str(tmp_path / "daemon.json")],
            "registries": ["registry.example:5000"],
            "groups": [],
        }
    )
    module.commands, module.containers, module.present = [], "", {"docker", "dockerd", "apt-get"}

    def run(argv, timeout=30):
        module.commands.append(" ".join(argv))
        if argv[:2] == ["docker", "ps"]:
            return 0, module.containers
        if "--simulate" in argv:
            return 0, SIMULATED
        if "purge" in argv:
            module.present -= {"docker", "dockerd"}
        return 0, ""

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module.rules, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name, **_: name if name in module.present else None)
    module.data = data
    return module


def restore(host, purge):
    one = host.Host(purge)
    one.restore()
    return one


def apt(host):
    return [line.partition("300 ")[2] for line in host.commands if "apt-get" in line and "--simulate" not in line]


def test_the_engine_goes_and_its_data_stay(host):
    restore(host, purge=False)
    assert apt(host) == ["remove docker.io rsync", "purge docker.io rsync"]
    assert (host.data / "image").exists()
    assert not host.NUKE.exists()  # else the purge of docker.io would have taken images and volumes along
    assert not host.DAEMON.exists()
    assert "docker logout registry.example:5000" in host.commands
    assert "groupdel docker" in host.commands
    # What docker leaves in the kernel is looked for once it has stopped.
    stopped = host.commands.index("systemctl stop docker.socket docker.service containerd.service")
    assert host.commands.index("iptables --table nat --list-rules") > stopped
    # A later purge still knows whose data they are, and no longer whose packages.
    assert host.record_part.load() == {"absent": [str(host.data)], "empty": []}
    host.commands.clear()
    restore(host, purge=True)
    assert not host.data.exists()
    assert apt(host) == []
    assert not host.record_part.RECORD.exists()


def test_purge_takes_the_data_along(host):
    restore(host, purge=True)
    assert not host.data.exists()
    assert not host.record_part.RECORD.exists()


def test_an_engine_with_containers_of_others_stays_and_runs_on(host):
    host.containers = "somebody"
    one = restore(host, purge=True)
    assert "somebody" in one.notes[0]
    assert apt(host) == []
    assert (host.data / "image").exists()
    assert not [line for line in host.commands if "stop" in line or "restart" in line or "iptables" in line]
    assert "systemctl reload docker" in host.commands
    assert not host.DAEMON.exists()
    assert host.record_part.load()["packages"] == ["docker.io", "rsync"]


def test_a_docker_that_does_not_answer_is_not_taken_for_an_empty_one(host, monkeypatch):
    monkeypatch.setattr(host, "run", lambda argv, timeout=30: (1, "cannot connect"))
    with pytest.raises(host.RestoreError, match="does not answer"):
        restore(host, purge=True)
    assert host.DAEMON.exists()


def test_a_host_without_notes_keeps_its_packages(host):
    host.record_part.RECORD.unlink()
    one = restore(host, purge=True)
    assert "no notes" in one.notes[0]
    assert host.commands == []
    assert json.loads(host.DAEMON.read_text()) == {"live-restore": True}


def test_what_bootstrap_held_is_let_go_before_it_is_removed(host):
    host.present.add("apt-mark")
    record = host.record_part.load()
    host.record_part.save({**record, "held": ["libcuda1", "nvidia-kernel-dkms"]})
    one = restore(host, purge=False)
    removal = next(number for number, line in enumerate(host.commands) if " remove " in line and "simulate" not in line)
    assert host.commands.index("apt-mark unhold libcuda1 nvidia-kernel-dkms") < removal
    assert any("after a reboot" in note for note in one.notes)


def test_holds_stay_with_an_engine_that_stays(host):
    host.present.add("apt-mark")
    host.containers = "somebodys"
    host.record_part.save({**host.record_part.load(), "held": ["nvidia-kernel-dkms"]})
    restore(host, purge=False)
    assert not [line for line in host.commands if line.startswith("apt-mark")]
    assert host.record_part.load()["held"] == ["nvidia-kernel-dkms"]


@pytest.mark.parametrize(
    ("held", "noted"),
    [("nvidia-kernel-dkms", True), ("libnvidia-container1", False), ("nvidia-container-toolkit", False)],
)
def test_a_driver_alone_stays_in_the_kernel(host, held, noted):
    host.present.add("apt-mark")
    host.record_part.save({**host.record_part.load(), "held": [held]})
    notes = restore(host, purge=False).notes
    assert f"apt-mark unhold {held}" in host.commands
    assert any("out of the kernel after a reboot" in note for note in notes) is noted


def test_a_specification_that_a_person_made_comes_back_where_it_still_fits(host, tmp_path):
    path, library = tmp_path / "nvidia.yaml", tmp_path / "libcuda.so.550"
    before = f"kind: nvidia.com/gpu\ndevices:\n- name: mine\n  mounts:\n  - hostPath: {library}\n"
    for there, wanted in ((True, before), (False, "ours")):
        library.touch() if there else library.unlink()
        path.write_text("ours")
        record = host.record_part.load()
        host.record_part.save({**record, "files": {str(path): {"before": before, "mode": 0o640}}})
        one = host.Host(False)
        one._put_back()
        assert path.read_text() == wanted
        assert bool(one.notes) is not there


def test_a_file_is_noted_as_it_was_first(host, tmp_path):
    path = tmp_path / "nvidia.yaml"
    host.record_part.note_file(path)
    for text in ("first", "second"):
        path.write_text(text)
        host.record_part.note_file(path)
    assert host.record_part.load()["files"][str(path)]["before"] == "first"


def test_dockers_chains_go_with_the_jumps_to_them_and_its_tables_once_empty(role_module, monkeypatch):
    rules, commands = role_module("container_engine_rules"), []
    listing = "-P FORWARD DROP\n-N DOCKER\n-N MINE\n-A FORWARD -o docker0 -j DOCKER\n-A FORWARD -j MINE\n"
    table = {"table": {"family": "ip", "name": "nat"}}

    def run(argv, timeout=30):
        commands.append(" ".join(argv))
        if argv[-1] == "--list-rules":
            return 0, listing if argv[:3] == ["iptables", "--table", "filter"] else ""
        return 0, json.dumps({"nftables": [table]}) if "--json" in argv else ""

    monkeypatch.setattr(rules, "run", run)
    rules.drop({"tables": ["ip nat"]})
    assert [line for line in commands if "list" not in line] == [
        "iptables --table filter --delete FORWARD -o docker0 -j DOCKER",
        "iptables --table filter --flush DOCKER",
        "iptables --table filter --delete-chain DOCKER",
    ]
    commands.clear()
    rules.drop({})  # the table was not there before docker
    assert commands[-1] == "nft delete table ip nat"
