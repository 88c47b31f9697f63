"""Bootstrap by the command line, from bare hosts: what is installed, and that a second run changes nothing."""

import json

from conftest import Site


def test_bootstrap_prepares_bare_hosts(site: Site) -> None:
    done = site.run("bootstrap", "inventory.ini", "--yes")
    assert "H100" in done.stdout
    for host in site.lab.hosts:
        assert site.lab.exec_root(host, "docker", "compose", "version", "--short")
        daemon = json.loads(site.lab.exec_root(host, "cat", "/etc/docker/daemon.json"))
        assert daemon["live-restore"] is True
        assert daemon["log-opts"]["max-size"]


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = [site.lab.exec_root(host, "sh", "-c", "stat -c %Y /etc/docker/daemon.json") for host in site.lab.hosts]
    done = site.run("bootstrap", "inventory.ini", "--yes")
    after = [site.lab.exec_root(host, "sh", "-c", "stat -c %Y /etc/docker/daemon.json") for host in site.lab.hosts]
    assert before == after
    assert "nothing changed" in done.stdout.lower()


def test_the_first_host_is_recorded_as_the_gateway(site: Site) -> None:
    first, *others = site.lab.hosts
    assert site.json("status")["gateway"] == first
    # Reordering an inventory moves nothing.
    lines = (site.folder / "inventory.ini").read_text().splitlines()
    one, two = (i for i, line in enumerate(lines) if line.split(" ")[0] in {first, *others} and "ansible_host" in line)
    lines[one], lines[two] = lines[two], lines[one]
    site.write("turned.ini", "\n".join(lines) + "\n")
    site.run("bootstrap", "turned.ini", "--yes")
    assert site.json("status", "-i", "turned.ini")["gateway"] == first
