"""Chat on Open WebUI's page as a person does, in Debian's Chromium.

    python tests/browser/chat.py --url URL --email E --password-file F --message M --expect TEXT --screenshot PNG

Signs in, closes what covers the page, sends the message, and waits until TEXT stands in the model's answer. The
screenshot is taken at the end, also when something went wrong. Needs Debian's packages chromium and chromium-driver
(fonts-noto-cjk to see Chinese), and selenium. Exit codes: 0 the answer came, 1 it did not, and why.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
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


def send(driver: webdriver.Chrome, message: str) -> None:
    """Type the message and send it."""
    visible(driver, PROMPT, "field for the message").send_keys(message)
    visible(driver, SEND, "button to send").click()


def wait_for_answer(driver: webdriver.Chrome, expected: str) -> str:
    """Return the model's answer once it holds `expected`."""

    def answered(current: webdriver.Chrome) -> bool:
        return any(expected in found.text for found in current.find_elements(By.CSS_SELECTOR, ANSWER))

    try:
        patient(driver, ANSWER_WAIT_S).until(answered)
    except TimeoutException:
        raise BrowserError(
            f"no answer with {expected!r} within {ANSWER_WAIT_S:.0f} s; the page says: {page_text(driver)}"
        ) from None
    return str(driver.find_elements(By.CSS_SELECTOR, ANSWER)[-1].text)


def page_text(driver: webdriver.Chrome) -> str:
    """Return the end of what stands on the page, on one line."""
    return " ".join(driver.find_element(By.TAG_NAME, "body").text.split())[-400:]


def chat(options: argparse.Namespace) -> str:
    """Do it all, and leave a screenshot in any case."""
    password = options.password_file.read_text().strip()
    with browser() as driver:
        try:
            sign_in(driver, options.url, options.email, password)
            open_chat(driver, options.url)
            send(driver, options.message)
            return wait_for_answer(driver, options.expect)
        finally:
            if options.screenshot:
                options.screenshot.parent.mkdir(parents=True, exist_ok=True)
                driver.save_screenshot(str(options.screenshot))


def main() -> int:
    """Parse the command line, chat, and say how it went."""
    parser = argparse.ArgumentParser(description="Chat on Open WebUI's page in Chromium.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--email", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--message", required=True)
    parser.add_argument("--expect", required=True, help="text that the answer must hold")
    parser.add_argument("--screenshot", type=Path)
    options = parser.parse_args()
    try:
        print(chat(options))
    except WebDriverException as failure:
        print(f"browser: Chromium or its driver failed: {failure.msg}", file=sys.stderr)
        return 1
    except (BrowserError, OSError) as failure:
        print(f"browser: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
