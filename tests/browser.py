"""A page in a real browser, without a network: what it shows, what it asks for and what goes wrong."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = find_spec("playwright") and (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
"""The browser's program; None where it is not installed, or what drives it is not."""


class Opened(NamedTuple):
    """What a page did and has.

    Args:
        console: Errors and warnings of the console, and uncaught exceptions.
        requests: Addresses asked for, beside the page's own and data.
        facts: What scripts found in the page, by name.
    """

    console: list[str]
    requests: list[str]
    facts: dict[str, Any]


def open_page(
    path: Path, scripts: dict[str, str], width: int = 1280, dark: bool = False, screenshot: Path | None = None
) -> Opened:
    """Open a file in headless Chromium.

    Args:
        path: The page.
        scripts: JavaScript expressions by name, whose values are returned.
        width: Of the window, in pixels.
        dark: Whether the reader prefers dark pages.
        screenshot: Where a picture of the whole page goes; None for none.
    """
    from playwright.sync_api import sync_playwright

    console: list[str] = []
    requests: list[str] = []
    address = path.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", bypass_csp=False
        )
        page.on("console", lambda message: console.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: console.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.wait_for_load_state()
        facts = {name: page.evaluate(script) for name, script in scripts.items()}
        if screenshot is not None:
            page.screenshot(path=screenshot, full_page=True)
        browser.close()
    return Opened(console, [url for url in requests if url != address and not url.startswith("data:")], facts)
