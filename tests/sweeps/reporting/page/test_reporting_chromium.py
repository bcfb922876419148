"""The page in a browser, from disk: everything shows, nothing is fetched, nothing complains."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from core_tuning.report.page import write_html
from core_tuning.sweeps.reporting.page import page_of
from core_tuning.sweeps.reporting.views import draw_parts

BROWSERS = ("chromium", "chromium-browser")
# Of every figure and table: its kind, whether it shows, and whether it is inside of the page.
LOOK = """
const page = document.documentElement;
return [...document.querySelectorAll("img, table")].map(item => {
  const box = item.getBoundingClientRect(), frame = item.closest(".wide").getBoundingClientRect();
  return {
    kind: item.tagName,
    size: item.tagName == "IMG" ? [item.naturalWidth, item.naturalHeight] : [1, 1],
    shows: item.checkVisibility({opacityProperty: true, visibilityProperty: true})
      && box.width > 50 && box.height > 20 && item.closest(".wide").checkVisibility(),
    inside: frame.left >= 0 && frame.right <= page.clientWidth && box.left >= 0
      && box.top >= frame.top && box.bottom <= frame.bottom + 1
      && box.bottom + scrollY <= page.scrollHeight,
    reachable: box.width <= item.closest(".wide").scrollWidth + 1,
  };
});
"""


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, a cache or a network; its logs are kept."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Debian's chromium and chromium-driver are not both installed")
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("selenium is not installed: pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    yield running
    running.quit()


@pytest.fixture
def opened(browser, every_kind, tmp_path):
    """The page of a report with every kind of figure, opened from disk at a width in pixels."""
    figures = draw_parts(every_kind.parts, tmp_path / "figures", "mine")
    write_html(page_of(every_kind, figures), tmp_path / "report.html")

    def open_at(width):
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.get((tmp_path / "report.html").as_uri())
        return browser

    return open_at


def requests(browser):
    """Addresses that the browser asked for, without what is inside of the page."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith("data:")]


@pytest.mark.parametrize("width", [1200, 400])
def test_every_figure_and_table_shows(opened, every_kind, width):
    browser = opened(width)
    found = browser.execute_script(LOOK)
    assert [item["kind"] for item in found].count("IMG") == 6
    assert [item["kind"] for item in found].count("TABLE") >= len(every_kind.parts)
    for item in found:
        assert min(item["size"]) > 0, item
        assert item["shows"], item
        assert item["inside"], item
        assert item["reachable"], item
    # Only the boxes scroll sideways, the page does not.
    page = browser.execute_script(
        "const page = document.documentElement;"
        "return [page.scrollWidth, page.clientWidth, window.innerWidth]"
    )
    assert page[0] <= page[1] <= page[2] == width


def test_nothing_is_fetched_and_the_console_is_silent(opened, tmp_path):
    browser = opened(1200)
    assert requests(browser) == [(tmp_path / "report.html").as_uri()]
    assert browser.get_log("browser") == []
    assert browser.title == "A title"


def test_the_browser_would_tell(browser, tmp_path):
    """The two checks above find what they look for."""
    path = tmp_path / "bad.html"
    path.write_text('<script>console.error("a")</script><img src="http://example.org/a.png">')
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    assert "http://example.org/a.png" in requests(browser)
    assert any('"a"' in entry["message"] for entry in browser.get_log("browser"))


def test_dark_mode_changes_no_colour(opened):
    """A browser's dark mode must not put dark letters on a dark page."""
    browser = opened(1200)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    style = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert style == ["rgb(17, 17, 17)", "rgb(255, 255, 255)"]
