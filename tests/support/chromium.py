"""A real Chromium for tests: one for a file of tests, driven through Debian's chromedriver."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains

from tests.support.daemon_process import DaemonProcess, Site
from tests.support.missing import skip_or_fail
from tests.support.pacing import wait_until
from tests.support.servers import RcloneS3, ValkeyServer

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

SCREENS = {"phone": (390, 844), "desktop": (1280, 800)}
"""Width and height in CSS pixels."""

Light = Literal["light", "dark"]
MakeSite = Callable[..., Site]

IS = "return document.body.dataset.level === arguments[0]"
"""Whether the page gives an answer of this level."""

# Chromium's own notes: nothing answers; another password; nothing has come yet of a recording that grows.
_EXPECTED = ("net::ERR_", "status of 401", "status of 416")


class Chromium:
    """One browser with one tab.

    Parameters:
        driver: selenium's, connected.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    # ------------------------------------------------------------------ what it shows

    def open(self, url: str, *, light: Light = "light") -> None:
        """Load a page in a window of a desktop's size."""
        self.resize(1280, 800, light)
        self.driver.get(url)

    def resize(self, width: int, height: int, light: Light = "light") -> None:
        """Resize the window, and change its user's taste; below 600 it is a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": light}])

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page and give what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of the first such element."""
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
        return self.driver.execute_cdp_cmd(command, parameters)

    def console(self) -> list[str]:
        """Take what was written to the console since the last time, but for plain notes."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    # ------------------------------------------------------------------ what a person does

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, on whatever has the focus."""
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def focused(self) -> str:
        """Return the name of what has the focus, or its text, or its tag."""
        return str(
            self.run(
                "const f = document.activeElement;"
                "return f.getAttribute('aria-label') || f.id || f.textContent.trim() || f.tagName"
            )
        )


@contextmanager
def running() -> Iterator[Chromium]:
    """One browser with a new profile, while the `with` block runs."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Both paths are given, so that selenium does not look for a browser of its own in the internet.
    service = ChromeService(shutil.which("chromedriver") or "chromedriver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=service)
        try:
            yield Chromium(driver)
        finally:
            driver.quit()


# ---------------------------------------------------------------------- fixtures of the files that use it


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """One browser for all tests of a file; they are skipped, or in CI fail, if it is not installed."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        message = "this needs chromium and chromedriver (on Debian: apt install chromium chromium-driver)"
        skip_or_fail(message)
    with running() as chromium:
        yield chromium


@pytest.fixture
def chromium(browser: Chromium) -> Iterator[Chromium]:
    """The browser; its console must be empty in the end: no error, nothing that the policy refused."""
    yield browser
    browser.open("about:blank")
    assert not [line for line in browser.console() if not any(note in line for note in _EXPECTED)]


@pytest.fixture(scope="module")
def make_site(
    tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer, rclone: RcloneS3
) -> Iterator[MakeSite]:
    """Make watched folders with buckets of their own; their daemons end with the tests of the file."""
    with ExitStack() as sites:

        def make(*, s3: RcloneS3 | None = None, **settings: str) -> Site:
            name = f"page-{uuid.uuid4().hex}"
            site = Site(tmp_path_factory.mktemp("site"), valkey, s3 or rclone, name, **settings)
            sites.callback(site.close)
            return site

        yield make


def write(site: Site, path: str, size: int = 1000) -> None:
    """Put a file of noise into a watched folder."""
    target = site.folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(os.urandom(size))


def opened(chromium: Chromium, daemon: DaemonProcess, level: str, light: Light = "light") -> None:
    """Open a daemon's page and wait until it gives an answer of this level."""
    chromium.open(daemon.wait_for("serving")["url"], light=light)
    chromium.wait(IS, level, why=f"the page never said {level}")
