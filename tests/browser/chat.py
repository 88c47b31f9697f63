"""Chat on Open WebUI's page as a person does, in Debian's Chromium.

    python tests/browser/chat.py --url URL --email E --password-file F --message M --expect TEXT --screenshot PNG

Signs in, closes what covers the page, sends the message, and waits until TEXT stands in the model's answer. The
screenshot is taken at the end, also when something went wrong. What it needs stands in page.py. Exit codes: 0 the
answer came, 1 it did not, and why.
"""

import argparse
import sys
from pathlib import Path

from page import BrowserError, browser, open_chat, send, sign_in, wait_for_answer
from selenium.common.exceptions import WebDriverException


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
