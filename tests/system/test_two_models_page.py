"""Two models on Open WebUI's page, with a real browser: its list follows deployments, and chats outlive updates."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import tiny
from selenium import webdriver
from tests.browser import page as web
from tests.load.changes import length, replaced
from tests.load.rehearsal import SETTINGS, Rehearsal, Replica, make_folder, until
from tests.load.served import Served, served, stub_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = '{image: "onprem-llm/open-webui:0.12.4", port: 3000, env: {WEBUI_NAME: CALLED}}'
ADMIN, PASSWORD = "admin@example.com", "/srv/onprem-llm/secrets/open-webui-admin"
# A name as people give them: the page, the gateway and the engine must all mean the same by it.
ECHO = "Echo 回声"
MOUNTAIN, CHINESE, HELLO = "What is the highest mountain?", "世界上最高的山峰是哪座山？", "hello from the page"


class Page:
    """The page of this rehearsal, and the chats that were begun on it."""

    def __init__(self, rehearsal: Rehearsal, real: Served) -> None:
        self.rehearsal, self.site, self.real = rehearsal, rehearsal.site, real
        self.url = f"http://{rehearsal.address(rehearsal.gateway_host)}:3000"
        self.container = Replica(rehearsal.lab, rehearsal.gateway_host, "open-webui-open-webui-1")
        self.chats: dict[str, str] = {}

    @contextlib.contextmanager
    def person(self, shot: str) -> Iterator[webdriver.Chrome]:
        """Sign in with an empty browser: what it shows comes from the server. A screenshot is left in any case."""
        password = self.rehearsal.lab.exec_root(self.rehearsal.gateway_host, "cat", PASSWORD).strip()
        shots = Path(os.environ.get("ONPREM_LLM_ARTIFACTS", ROOT / "artifacts"))
        shots.mkdir(exist_ok=True)
        with web.browser() as driver:
            try:
                web.sign_in(driver, self.url, ADMIN, password)
                web.new_chat(driver, self.url)
                yield driver
            finally:
                driver.save_screenshot(str(shots / f"two-models-{shot}.png"))

    def chat(self, driver: webdriver.Chrome, model: str, message: str, expected: str) -> None:
        """Begin a chat."""
        web.new_chat(driver, self.url)
        web.choose(driver, model)
        web.send(driver, message)
        web.wait_for_answer(driver, expected)
        self.chats[model] = web.this_chat(driver)

    def deploy(self, name: str, *, port: int, extra: str = "") -> None:
        """Deploy the stub engine, once."""
        self.site.write(f"{name}.yaml", stub_text(self.rehearsal, name, port=port, replicas=1, extra=extra))
        self.site.run("deploy", f"{name}.yaml", "--yes")


def settings(name: str) -> str:
    """Return the site's settings with the page, which calls itself by a name."""
    return SETTINGS.replace("{enabled: false}", PAGE.replace("CALLED", name))


@pytest.fixture(scope="module")
def page(rehearsal: Rehearsal) -> Iterator[Page]:
    """The real vLLM twice, a stub to chat with, one to embed with; the page and Chromium, for this test alone."""
    for command in (["sh", "images/build.sh", "open-webui"], ["sh", "tests/browser/install.sh"]):
        subprocess.run(command, cwd=ROOT, check=True)
    make_folder(rehearsal.site.folder)
    rehearsal.site.write("group_vars/all.yml", settings("Rehearsal"))
    try:
        with served(rehearsal, "tiny", tiny(2)) as real:
            page = Page(rehearsal, real)
            page.deploy("echo", port=8001, extra=f"served_name: {ECHO}\n")
            page.deploy("vec", port=8002, extra="task: embed\n")
            yield page
    finally:
        for name in ("late", "vec", "echo"):
            rehearsal.down(name)
        rehearsal.site.write("group_vars/all.yml", SETTINGS)


def test_a_chat_with_each(page: Page) -> None:
    with page.person("chats") as driver:
        assert web.offered(driver, page.url) == [ECHO, "tiny"], "what one can chat with, and nothing else"
        page.chat(driver, "tiny", MOUNTAIN, "Everest")
        page.chat(driver, ECHO, HELLO, f"stub: {HELLO}")
        assert len(set(page.chats.values())) == 2


def test_the_list_follows_deploy_and_down(page: Page) -> None:
    born = page.container.born
    with page.person("list") as driver:
        page.deploy("late", port=8003)
        until(lambda: web.offered(driver, page.url) == [ECHO, "late", "tiny"], 30, "the new model is offered")
        page.site.run("down", "late", "--yes")
        until(lambda: web.offered(driver, page.url) == [ECHO, "tiny"], 30, "the model that is gone is not offered")
    assert page.container.born == born, "the page was restarted for a deployment that came or went"


def test_after_a_rolling_update_the_old_chats_are_there_and_go_on(page: Page) -> None:
    born, before = page.container.born, page.real.births()
    page.real.deploy(length(page.real, 64))
    replaced(page.real, before)
    assert page.container.born == born, "the page was restarted for an update of a model"
    with page.person("after-update") as driver:
        old_chat(page, driver, "tiny", MOUNTAIN, "Everest")
        web.send(driver, CHINESE)
        web.wait_for_answer(driver, "珠穆朗玛峰")
        assert "Everest" in web.answers(driver)[0]
        assert len(web.answers(driver)) == 2
        old_chat(page, driver, ECHO, HELLO, f"stub: {HELLO}")


def test_chats_outlive_the_pages_own_update(page: Page) -> None:
    born = page.container.born
    page.site.write("group_vars/all.yml", settings("Another"))
    page.site.run("deploy", page.real.file, "--yes")
    assert page.container.born != born
    with page.person("after-the-pages-update") as driver:
        old_chat(page, driver, "tiny", MOUNTAIN, "Everest")
        web.wait_for_answer(driver, "珠穆朗玛峰")
        assert "Another" in driver.title


def old_chat(page: Page, driver: webdriver.Chrome, model: str, message: str, expected: str) -> None:
    """Open a chat from the list at the side; assert that it has the question and its answer."""
    web.open_old_chat(driver, page.chats[model])
    assert message in driver.find_element("tag name", "body").text
    assert expected in web.answers(driver)[0]
