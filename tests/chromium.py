"""A real Chromium for tests: one for a file of tests, driven through Debian's chromedriver."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.action_chains import ActionChains

from tests.pacing import wait_until

ANSWER_SECONDS = 30.0
"""For anything that a page does within its two seconds on an idle machine."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in CI, where Chromium refuses its sandbox
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # a container's /dev/shm can be too small
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
)

Light = Literal["light", "dark"]
Script = Callable[..., Any]


class Chromium:
    """One browser with one tab.

    Parameters:
        driver: selenium's, connected.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    # ------------------------------------------------------------------ what it shows

    def open(self, url: str, *, width: int = 1280, height: int = 800, light: Light = "light") -> None:
        """Load a page in a window of this size, with nothing left of an earlier page."""
        self.driver.get("about:blank")
        self.console()
        self.resize(width, height, light)
        self.driver.get(url)

    def resize(self, width: int, height: int, light: Light = "light") -> None:
        """Give the window another size, and its user another taste; below 600 it is a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": light}])

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page and give what it returns."""
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def text(self, selector: str) -> str:
        """Give the text of the first such element."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def wait(self, script: str, *arguments: object, why: str = "", seconds: float = ANSWER_SECONDS) -> Any:
        """Wait until a script returns something true, and give that."""
        try:
            return wait_until(lambda: self.run(script, *arguments), seconds, why or script)
        except AssertionError as error:
            page = self.run("return document.body.innerText.slice(0, 2000)")
            raise AssertionError(f"{error}\nThe page:\n{page}\nThe console: {self.console()}") from None

    def cdp(self, command: str, **parameters: object) -> Any:
        """Speak to the browser itself (Chrome DevTools Protocol)."""
        return self.driver.execute_cdp_cmd(command, parameters)  # type: ignore[no-untyped-call]

    def console(self) -> list[str]:
        """Take what was written to the console since the last time, but for plain notes."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    # ------------------------------------------------------------------ what a person does

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, on whatever has the focus."""
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def focused(self) -> str:
        """Give the name of what has the focus, or its text, or its tag."""
        return str(
            self.run(
                "const f = document.activeElement;"
                "return f.getAttribute('aria-label') || f.id || f.textContent.trim() || f.tagName"
            )
        )


def chromium_or_skip() -> Iterator[Chromium]:
    """A fixture's body: a browser while its tests run; skipped, or in CI failed, if it is not installed."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        message = "this needs chromium and chromedriver (on Debian: apt install chromium chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with _running(*map(str, programs)) as chromium:
        yield chromium


@contextmanager
def _running(program: str, driver_program: str) -> Iterator[Chromium]:
    options = ChromeOptions()  # type: ignore[no-untyped-call]
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})  # type: ignore[no-untyped-call]
    # Both paths are given, so that selenium does not look for a browser of its own in the internet.
    service = ChromeService(driver_program)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)  # type: ignore[no-untyped-call]
        driver = Chrome(options=options, service=service)
        try:
            yield Chromium(driver)
        finally:
            driver.quit()


__all__ = ["ANSWER_SECONDS", "Chromium", "Keys", "Light", "chromium_or_skip"]
