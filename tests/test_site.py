"""The site that `make docs` has built, in a real browser: every page, as wide as a desktop and as a telephone."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("index.html"))
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium, or playwright, is not installed")


class Silent(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *arguments: object) -> None:
        pass


def faults(folder: Path, pages: list[str], width: int) -> Iterator[tuple[str, str]]:
    """What is wrong with pages of a folder: messages of the console, requests to elsewhere, and sideways scrolling.

    Args:
        folder: What is served.
        pages: Their paths in it.
        width: Of the window, in pixels.
    """
    from playwright.sync_api import sync_playwright

    messages: list[str] = []
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}/"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on(
            "console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((here, "data:")) else messages.append(asked.url))
        for name in pages:
            page.goto(here + name)
            if page.evaluate(OVERFLOW) > 0:
                messages.append("scrolls sideways")
            yield from ((name, fault) for fault in messages)
            messages.clear()
        browser.close()
        server.shutdown()


@browser
@pytest.mark.skipif(not PAGES, reason="the site is not built: make docs")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "telephone"])
def test_every_page_opens_without_a_fault(width):
    assert list(faults(SITE, PAGES, width)) == []


@browser
def test_faults_are_found(tmp_path):
    (tmp_path / "sound.html").write_text("<!doctype html><link rel=icon href=data:,><p>text</p>")
    (tmp_path / "wrong.html").write_text(
        "<!doctype html><link rel=icon href=data:,><script>undefined.name</script><div style='width: 500px'>wide</div>"
        "<img src='http://127.0.0.1:9/picture.png'>"
    )
    seen = list(faults(tmp_path, ["wrong.html", "sound.html"], width=390))
    assert {name for name, _ in seen} == {"wrong.html"}
    messages = " ".join(fault for _, fault in seen)
    assert "undefined" in messages
    assert "http://127.0.0.1:9/picture.png" in messages
    assert "scrolls sideways" in messages


@pytest.mark.parametrize(("code", "status"), [("print(6 * 7)", 0), ("print(1 / 0)", 1)])
def test_a_tutorial_that_fails_ends_the_build_and_is_named(code, status, tmp_path):
    pytest.importorskip("markdown_exec", reason="the packages of the documentation are not installed: make docs")
    (tmp_path / "docs").mkdir()
    fence = '```python exec="on" source="above" result="text" session="a-tutorial"'
    (tmp_path / "docs" / "index.md").write_text(f"# A tutorial\n\n{fence}\n{code}\n```\n")
    settings = "site_name: A site\nplugins: [markdown-exec]\nmarkdown_extensions: [pymdownx.superfences]\n"
    (tmp_path / "mkdocs.yml").write_text(settings)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(tmp_path / "mkdocs.yml")]
    assert " ".join(build[1:5]) in (ROOT / "Makefile").read_text().replace("-W ignore::UserWarning ", "")
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == status
    if status:
        assert "session a-tutorial" in done.stderr
    else:
        assert "42" in (tmp_path / "site" / "index.html").read_text()
