"""Open WebUI's page as a person uses it, in Debian's Chromium: what chat.py and the system scenario share.

Needs Debian's packages chromium and chromium-driver (fonts-noto-cjk to see Chinese), and selenium. Whatever a person
would have seen go wrong is a BrowserError.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
# No sandbox, since tests run as root; the rest keeps Chromium from calling home.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",
    "--window-size=1280,900",
)

EMAIL = "input[type=email], input#email"
PASSWORD = "input[type=password], input#password"
PROMPT = "#chat-input"
SEND = "#send-message-button"
TOAST = "[data-sonner-toast]"
ANSWER = ".chat-assistant"
WHOLE = ".copy-response-button"  # below an answer once it has ended
MODEL_BUTTON = "#model-selector-model-button"
MODEL = "#model-selector-list [role=option]"
SIDEBAR = "button[aria-label='Open Sidebar']"
OLD_CHAT = "data-sidebar-chat-id"
PAGE_WAIT_S, ANSWER_WAIT_S, DIALOG_WAIT_S, MOVE_WAIT_S = 60.0, 120.0, 4.0, 10.0


class BrowserError(Exception):
    """Something that a person would have seen go wrong."""


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Run Chromium with an empty profile of its own."""
    for program in (CHROMIUM, CHROMEDRIVER):
        if not program.exists():
            raise BrowserError(f"{program} is missing; apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(prefix="onprem-llm-browser-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
        try:
            yield driver
        finally:
            driver.quit()


def patient(driver: webdriver.Chrome, wait_s: float) -> WebDriverWait[webdriver.Chrome]:
    """Wait on a page that redraws itself: an element that is gone by now is looked for again."""
    return WebDriverWait(driver, wait_s, ignored_exceptions=[StaleElementReferenceException])


def visible(driver: webdriver.Chrome, selector: str, what: str, wait_s: float = PAGE_WAIT_S) -> WebElement:
    """Wait for the first displayed element of `selector`."""

    def look(current: webdriver.Chrome) -> WebElement | None:
        return next((found for found in current.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()), None)

    try:
        found = patient(driver, wait_s).until(look)
    except TimeoutException:
        raise BrowserError(f"no {what} ({selector}) within {wait_s:.0f} s at {driver.current_url}") from None
    if found is None:  # until() returns what is true, which mypy cannot know
        raise BrowserError(f"no {what}")
    return found


def sign_in(driver: webdriver.Chrome, url: str, email: str, password: str) -> None:
    """Open the page and sign in."""
    driver.get(f"{url.rstrip('/')}/auth")
    visible(driver, EMAIL, "field for the email").send_keys(email)
    visible(driver, PASSWORD, "field for the password").send_keys(password)
    visible(driver, "button[type=submit]", "button to sign in").click()

    def inside(current: webdriver.Chrome) -> bool:
        return "/auth" not in current.current_url

    # The page says at once how it went, and moves on a moment later if it went well.
    said = "nothing"
    try:
        patient(driver, PAGE_WAIT_S).until(
            lambda current: inside(current) or current.find_elements(By.CSS_SELECTOR, TOAST)
        )
        said = page_text(driver)
        patient(driver, MOVE_WAIT_S).until(inside)
    except TimeoutException:
        raise BrowserError(f"{email} was not let in; the page said: {said}") from None


def open_chat(driver: webdriver.Chrome, url: str) -> None:
    """Wait for the field to type in, and close what covers it at the first visit (what is new)."""
    try:
        visible(driver, PROMPT, "field for the message", PAGE_WAIT_S / 2)
    except BrowserError:
        # On a busy machine the page was seen once to stop at its own script's "500: Internal Error"; a person reloads.
        print(f"browser: reloading; the page says: {page_text(driver)}", file=sys.stderr)
        driver.get(url)
        visible(driver, PROMPT, "field for the message")
    deadline = time.monotonic() + DIALOG_WAIT_S
    while time.monotonic() < deadline:
        with suppress(StaleElementReferenceException):
            buttons = driver.find_elements(By.CSS_SELECTOR, "[role=dialog] button")
            if buttons and buttons[-1].is_displayed():
                buttons[-1].click()
        time.sleep(0.5)


def new_chat(driver: webdriver.Chrome, url: str) -> None:
    """Open the page anew."""
    driver.get(url)
    open_chat(driver, url)


def send(driver: webdriver.Chrome, message: str) -> None:
    """Type the message and send it."""
    visible(driver, PROMPT, "field for the message").send_keys(message)
    visible(driver, SEND, "button to send").click()


def wait_for_answer(driver: webdriver.Chrome, expected: str) -> str:
    """Return the model's last answer once it has ended, with `expected` in it."""

    def answered(current: webdriver.Chrome) -> bool:
        said = answers(current)
        return expected in "".join(said[-1:]) and len(current.find_elements(By.CSS_SELECTOR, WHOLE)) == len(said)

    try:
        patient(driver, ANSWER_WAIT_S).until(answered)
    except TimeoutException:
        raise BrowserError(
            f"no answer with {expected!r} within {ANSWER_WAIT_S:.0f} s; the page says: {page_text(driver)}"
        ) from None
    return answers(driver)[-1]


def answers(driver: webdriver.Chrome) -> list[str]:
    """Return the model's answers of the chat that is open, from the first to the last."""
    return [str(found.text) for found in driver.find_elements(By.CSS_SELECTOR, ANSWER)]


def open_models(driver: webdriver.Chrome) -> list[str]:
    """Open the list of models, and return their names."""
    visible(driver, MODEL_BUTTON, "button to choose a model").click()
    visible(driver, MODEL, "model to choose")
    return [str(found.text).splitlines()[0] for found in driver.find_elements(By.CSS_SELECTOR, MODEL)]


def offered(driver: webdriver.Chrome, url: str) -> list[str]:
    """Open the page anew, and return the names of the models that it offers, sorted."""
    new_chat(driver, url)
    names = open_models(driver)
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    return sorted(names)


def choose(driver: webdriver.Chrome, name: str) -> None:
    """Choose a model for the chat that is open."""
    names = open_models(driver)
    if name not in names:
        raise BrowserError(f"no model {name!r} to choose; there are {names}")
    driver.find_elements(By.CSS_SELECTOR, MODEL)[names.index(name)].click()


def this_chat(driver: webdriver.Chrome) -> str:
    """Return the id of the chat that is open, which is in its address."""
    return str(driver.current_url).partition("/c/")[2]


def old_chats(driver: webdriver.Chrome) -> list[str]:
    """Return the ids of the chats that the list at the side shows, the newest first."""
    if not any(found.is_displayed() for found in driver.find_elements(By.CSS_SELECTOR, f"[{OLD_CHAT}]")):
        visible(driver, SIDEBAR, "button to see the old chats").click()
    visible(driver, f"[{OLD_CHAT}]", "old chat at the side")
    return [str(found.get_attribute(OLD_CHAT)) for found in driver.find_elements(By.CSS_SELECTOR, f"[{OLD_CHAT}]")]


def open_old_chat(driver: webdriver.Chrome, chat: str) -> None:
    """Choose a chat from the list at the side, and wait until its answers are there."""
    if chat not in old_chats(driver):
        raise BrowserError(f"the chat {chat} is not among the old ones; the page says: {page_text(driver)}")
    visible(driver, f"[{OLD_CHAT}='{chat}'] a", "old chat").click()
    try:
        patient(driver, PAGE_WAIT_S).until(lambda current: this_chat(current) == chat and any(answers(current)))
    except TimeoutException:
        raise BrowserError(f"the chat {chat} did not open; the page says: {page_text(driver)}") from None


def page_text(driver: webdriver.Chrome) -> str:
    """Return the end of what stands on the page, on one line."""
    return " ".join(driver.find_element(By.TAG_NAME, "body").text.split())[-400:]
