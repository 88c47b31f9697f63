"""Three hosts with a Ray cluster to be on them: a head, and two workers that carry replicas.

Made for the run and taken down after it. ONPREM_LLM_TEST_RAY_INVENTORY names an inventory of hosts that are there
(bootstrapped, three of one lab, ONPREM_LLM_TEST_RAY_LAB), which stay.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import Lab, Site, cache
from tests.load.rehearsal import SETTINGS, Rehearsal, make_folder

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "onprem-llm/vllm-ray:0.29.0-ray2.60.0"
GROUPS = "\n[ray_head]\n{}\n\n[ray_worker]\n{}\n{}\n"


@contextmanager
def made_site(folder: Path, name: str, hosts: int) -> Iterator[Site]:
    """Have images, hosts and a site's folder; what is made for it goes with it."""
    given = os.environ.get("ONPREM_LLM_TEST_RAY_INVENTORY")
    for names in (["tiny-model"], ["gateway", "vllm-ray"]):
        subprocess.run(["sh", "images/build.sh", *names], cwd=ROOT, check=True)
    lab = Lab(os.environ.get("ONPREM_LLM_TEST_RAY_LAB", name), folder / "inventory.ini")
    site = Site(folder, lab)
    try:
        if given:
            shutil.copy(given, lab.inventory)
        else:
            site.run("lab", "down", "--name", lab.name, code=None)
            site.run("lab", "up", "--name", lab.name, "--hosts", str(hosts), "--ready", "--inventory", "inventory.ini")
        make_folder(folder)
        yield site
    finally:
        if not given and not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            site.run("lab", "down", "--name", lab.name, code=None)


def bootstrapped(site: Site) -> Rehearsal:
    """Prepare the hosts, where they are not given."""
    if not os.environ.get("ONPREM_LLM_TEST_RAY_INVENTORY"):
        site.run("bootstrap", "inventory.ini", "--yes", timeout=1200)
    return Rehearsal(site)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """The site: what the inventory and the settings say of Ray is there, no cluster stands yet."""
    folder = tmp_path_factory.mktemp("ray")
    with made_site(folder, "ray", 3) as site:
        (folder / "group_vars" / "all.yml").write_text(f'{SETTINGS}  ray: {{image: "{IMAGE}"}}\n')
        text = site.lab.inventory.read_text()
        if "[ray_head]" not in text:
            site.lab.inventory.write_text(text + GROUPS.format(*site.lab.hosts))
        assert (cache() / "images").is_dir()
        yield bootstrapped(site)
