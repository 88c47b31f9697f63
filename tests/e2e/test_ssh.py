"""Ways into hosts as sites have them, and each way that is barred: what a person is asked, and told."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from conftest import Lab, Site

from onprem_llm.connection import Connection
from onprem_llm.ssh import stream

PASSWORD = "correct horse"
SUDOERS = "/etc/sudoers.d/10-onprem-llm-lab"
CHECK = ("bootstrap", "--check")

Making = Callable[..., str]


@pytest.fixture(autouse=True)
def _cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test logs in anew: a connection that is still open needs neither key nor passphrase."""
    monkeypatch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", str(tmp_path / "cp"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    """An empty folder: these tests start nothing on the hosts."""
    return Site(tmp_path, lab)


@pytest.fixture
def variables(site: Site) -> dict[str, str]:
    """The settings by which the lab's own inventory reaches its hosts."""
    lines = site.lab.inventory.read_text().partition(":vars]\n")[2].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def inventory(site: Site, variables: dict[str, str], tmp_path: Path) -> Making:
    """Write an inventory of the lab's hosts, with some variables changed, and return its path."""
    listed = [line for line in site.lab.inventory.read_text().splitlines() if " ansible_host=" in line]

    def make(*more: str, hosts: list[str] | None = None, **changed: str) -> str:
        settings = {**variables, **changed}
        lines = [*(listed if hosts is None else hosts), *more, "[all:vars]"]
        path = tmp_path / "inventory.ini"
        path.write_text("\n".join(lines + [f"{name}={value}" for name, value in settings.items()]) + "\n")
        return str(path)

    return make


def addresses(site: Site) -> list[str]:
    lines = [line for line in site.lab.inventory.read_text().splitlines() if " ansible_host=" in line]
    return [line.partition("ansible_host=")[2].split()[0] for line in lines]


def on_terminal(site: Site, answers: list[tuple[str, str]], *arguments: str) -> tuple[int, str]:
    """Run onprem-llm on a terminal and answer its questions; return the exit code and all that was shown."""
    child = pexpect.spawn(
        "onprem-llm", list(arguments), cwd=str(site.folder), encoding="utf-8", timeout=40, dimensions=(50, 250)
    )
    shown = ""
    for question, answer in answers:
        child.expect(question)
        shown += child.before + child.after
        child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, shown + child.before


@pytest.fixture
def sudo_password(site: Site) -> Iterator[None]:
    """The hosts' sudo asks for a password."""
    before = site.lab.exec_root(site.lab.hosts[0], "cat", SUDOERS)
    for host in site.lab.hosts:
        rules = f"echo 'ops:{PASSWORD}' | chpasswd; echo 'ops ALL=(ALL:ALL) ALL' > {SUDOERS}; rm -rf /run/sudo/ts"
        site.lab.exec_root(host, "sh", "-c", rules)
    yield
    for host in site.lab.hosts:
        site.lab.exec_root(host, "sh", "-c", f"echo '{before.strip()}' > {SUDOERS}; usermod -p '*' ops")


@pytest.mark.usefixtures("sudo_password")
def test_sudo_with_a_password(site: Site, inventory: Making, tmp_path: Path) -> None:
    path = inventory()
    told = site.run(*CHECK, "-i", path, code=5)
    assert told.stderr.count("Missing sudo password") >= len(site.lab.hosts)
    assert "add --ask-become-pass (-K)" in told.stderr
    told = site.run(*CHECK, "-i", path, "-K", code=2)
    assert "there is no terminal to ask on" in told.stderr
    code, shown = on_terminal(site, [("sudo password: ", PASSWORD)], "status", "-i", path, "-K")
    assert code == 0, shown
    assert PASSWORD not in shown
    code, shown = on_terminal(site, [("sudo password: ", "wrong")], *CHECK, "-i", path, "-K")
    assert code == 5
    assert "did not take the password" in shown
    # The same for what streams, which is plain ssh.
    output = stream(site.lab.hosts[0], ["id", "-un"], Connection(Path(path), become_password=PASSWORD))
    assert b"".join(output) == b"root\n"


@pytest.mark.usefixtures("sudo_password")
def test_a_vault_holds_the_password(site: Site, inventory: Making, tmp_path: Path) -> None:
    path = inventory()
    vault, settings = tmp_path / "vault-password", tmp_path / "group_vars" / "all.yml"
    vault.write_text("the vault's\n")
    settings.parent.mkdir()
    settings.write_text(f"ansible_become_password: {PASSWORD}\n")
    subprocess.run(["ansible-vault", "encrypt", "--vault-password-file", vault, settings], check=True)
    told = site.run("status", "-i", path, code=3)
    assert "encrypted with ansible-vault" in told.stderr
    assert "--ask-vault-pass" in told.stderr
    site.run("status", "-i", path, "--vault-password-file", str(vault))


def test_no_right_to_sudo_and_no_python_do_not_stop_the_others(site: Site, inventory: Making) -> None:
    first, second = site.lab.hosts[:2]
    lines = [f"{name} ansible_host={address}" for name, address in zip((first, second), addresses(site), strict=False)]
    bare = f"bare ansible_host={addresses(site)[0]} ansible_python_interpreter=/opt/no/python3"
    site.lab.exec_root(second, "mv", SUDOERS, "/root/sudoers")
    try:
        code, shown = on_terminal(site, [("sudo password: ", "x")], *CHECK, "-i", inventory(hosts=[*lines, bare]), "-K")
    finally:
        site.lab.exec_root(second, "mv", "/root/sudoers", SUDOERS)
    assert code == 5
    assert f"{second}: failed" in shown
    assert "there is no Python 3 on bare" in shown
    assert f"ok: {first}" in shown


def test_hosts_that_do_not_answer_are_told_apart(site: Site, inventory: Making) -> None:
    first, address = site.lab.hosts[0], addresses(site)[0]
    nobody = f"{address.rpartition('.')[0]}.250"
    others = [f"off ansible_host={nobody}", "nameless ansible_host=nobody.invalid"]
    others += [
        f"closed ansible_host={address} ansible_port=2299",
        f"strange ansible_host={address} ansible_user=nobody",
    ]
    told = site.run(*CHECK, "-i", inventory(hosts=[f"{first} ansible_host={address}", *others]), code=4).stderr
    assert "off does not answer" in told
    assert "set ansible_host for nameless" in told
    assert "is sshd running on closed" in told
    assert "strange does not take the key" in told
    assert f"ok: {first}" in told


def test_a_key_with_a_passphrase(site: Site, inventory: Making, variables: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(Path(variables["ansible_ssh_private_key_file"]).read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSWORD, "-f", key], check=True)
    path = inventory(ansible_ssh_private_key_file=str(key))
    told = site.run(*CHECK, "-i", path, code=4)
    assert f"the key {key} has a passphrase" in told.stderr
    assert "ssh-add" in told.stderr
    answers = [("Passphrase for .*: ", "wrong"), ("Passphrase for .*: ", PASSWORD)]
    code, shown = on_terminal(site, answers, "status", "-i", path)
    assert code == 0, shown
    agents = subprocess.run(["pgrep", "-fx", "ssh-agent -D"], capture_output=True, text=True, check=False)
    assert agents.stdout == "", "the agent of the run is still there"


def test_an_unknown_host_key_is_shown_and_confirmed_once(site: Site, inventory: Making, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    path = inventory(ansible_ssh_common_args=f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes")
    prints = [
        site.lab.exec_root(host, "ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        for host in site.lab.hosts
    ]
    told = site.run(*CHECK, "-i", path, code=4)
    assert all(each in told.stderr for each in prints)
    assert not known.exists()
    code, shown = on_terminal(site, [("Add these 2 keys .*: ", "n")], *CHECK, "-i", path)
    assert code == 4
    assert not known.exists()
    code, shown = on_terminal(site, [("Add these 2 keys .*: ", "y")], "status", "-i", path)
    assert code == 0, shown
    assert all(each in shown for each in prints)
    assert len(known.read_text().splitlines()) == 2


def test_a_changed_host_key_is_never_taken(site: Site, inventory: Making, tmp_path: Path) -> None:
    known, other = tmp_path / "known_hosts", tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    line = f"{addresses(site)[0]} {' '.join(other.with_suffix('.pub').read_text().split()[:2])}\n"
    known.write_text(line)
    first = f"{site.lab.hosts[0]} ansible_host={addresses(site)[0]}"
    path = inventory(hosts=[first], ansible_ssh_common_args=f"-o UserKnownHostsFile={known}")
    code, shown = on_terminal(site, [], *CHECK, "-i", path)
    assert code == 4
    assert "IDENTIFICATION HAS CHANGED" in shown
    assert shown.count("SHA256:") >= 2
    assert f"ssh-keygen -R '{addresses(site)[0]}' -f {known}" in shown
    assert known.read_text() == line


def test_a_jump_host_whose_key_is_unknown_too(
    site: Site, inventory: Making, variables: dict[str, str], tmp_path: Path
) -> None:
    far, near = addresses(site)[:2]
    known, config = tmp_path / "known_hosts", tmp_path / "config"
    key, user = variables["ansible_ssh_private_key_file"], variables["ansible_user"]
    config.write_text(
        f"Host *\n  UserKnownHostsFile {known}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  User {user}\n"
        f"Host bastion\n  HostName {near}\nHost {far}\n  ProxyJump bastion\n"
    )
    first = f"{site.lab.hosts[0]} ansible_host={far}"
    path = inventory(hosts=[first], ansible_ssh_common_args=f"-F {config}")
    answers = [("bastion .*Add this key .*: ", "y"), ("Add this key .*: ", "y")]
    code, shown = on_terminal(site, answers, "status", "-i", path)
    assert code == 0, shown
    assert len(known.read_text().splitlines()) == 2
    assert b"".join(stream(site.lab.hosts[0], ["hostname"], Connection(Path(path)))).decode().strip()


def test_a_limit(site: Site, inventory: Making) -> None:
    first, second = site.lab.hosts[:2]
    shown = site.run(*CHECK, "-i", inventory(), "--limit", first)
    assert f"{first}: ok" in shown.stderr
    assert second not in shown.stdout + shown.stderr
    told = site.run(*CHECK, "-i", inventory(), "--limit", "nix", code=3)
    assert "no host matches the limit “nix”" in told.stderr


def test_what_streams_ends_on_the_host_when_nobody_reads_on(site: Site, inventory: Making) -> None:
    host = site.lab.hosts[0]
    output = stream(host, ["sh", "-c", "while sleep 0.1; do echo tick-4711; done"], Connection(Path(inventory())))
    assert b"tick" in next(output)
    assert site.lab.exec_root(host, "pgrep", "-f", "echo tick-4711")
    output.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    assert site.lab.exec_root(host, "pgrep", "-f", "echo tick-4711", check=False) == ""


def test_ctrl_c_ends_the_run_and_leaves_no_process(site: Site, inventory: Making) -> None:
    child = pexpect.spawn("onprem-llm", [*CHECK, "-i", inventory()], cwd=str(site.folder), encoding="utf-8", timeout=20)
    child.expect("Looking at the hosts")

    def playing() -> bool:
        mine = ["pgrep", "-f", f"ansible-playbook.*{site.folder}"]
        return subprocess.run(mine, capture_output=True, check=False).returncode == 0

    until = time.monotonic() + 15
    while not playing() and time.monotonic() < until:
        time.sleep(0.02)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not playing()
