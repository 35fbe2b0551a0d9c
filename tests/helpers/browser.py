"""A headless Chromium for the tests of pages. It needs chromedriver, and selenium of the extra test."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None or importlib.util.find_spec("selenium") is None,
    reason="needs a browser: apt-get install chromium chromium-driver, and selenium, of the extra test",
)
# What a browser would ask the network for by itself is off: the only requests are the page's.
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
_ARGUMENTS += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A WebDriver with its data in the folder `profile`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        yield made
    finally:
        made.quit()


def cleared(driver: Any) -> Any:
    """The browser as a desktop's, on an empty light page, with empty logs."""
    driver.get("about:blank")
    screen(driver, 1280)
    media(driver)
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    return driver


def screen(driver: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def media(driver: Any, kind: str = "screen", scheme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})


def axe_script() -> str:
    """axe-core, of the package axe-playwright-python; playwright itself is not needed. Skips without it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None:
        pytest.skip("needs axe-core's script: pip install axe-playwright-python, of the extra test")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
