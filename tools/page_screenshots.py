"""Pictures of the status page in its states: a real daemon, a real Chromium, on a phone and on a desktop.

Run it as `make pictures`; it takes about a minute.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
from selenium.webdriver import Keys

from tests.support.chromium import IS, SCREENS, Chromium, Light, running
from tests.support.daemon_process import Site, prelude_of
from tests.support.mp4_boxes import box, mdat
from tests.support.pacing import at_rate
from tests.support.servers import RcloneS3, ValkeyServer
from tests.support.writers import copied

ENDED = {"cam1/front-door 13-00.mp4": 12, "cam2/yard 13-00.mp4": 8, "studio/take 6.mp4": 15}
GROWING = {"cam1/front-door 14-00.mp4": 1.2e6, "cam2/yard 14-00.mp4": 0.8e6, "studio/take 7.mp4": 3.1e6}
GROWING_BYTES = 120_000_000  # at these rates longer than the pictures take
FAILING = "cam4/behind the chimney, towards the old yard 13-00.mp4"
SHORT_KEYS = prelude_of(
    {"recording.layout.MAX_KEY_BYTES": 80}
)  # so that of all names above this one is too long

MANY = 200


def main() -> int:
    """Take all pictures; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=Path("data/screenshots"), help="folder for them")
    chosen = parser.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nvr-") as base, ExitStack() as parts:
        valkey, store = ValkeyServer(Path(base, "valkey")), RcloneS3(Path(base, "rclone"))
        for server in (valkey, store):
            server.start()
            parts.callback(server.close)
        chromium = parts.enter_context(running())
        sites = []
        for name, timeout in (("few", "2"), ("many", "600"), ("noted", "600")):
            Path(base, name).mkdir()
            sites.append(
                Site(
                    Path(base, name),
                    valkey,
                    store,
                    "videos" if name == "few" else f"videos-{name}",
                    STREAM_TIMEOUT_SECONDS=timeout,
                )
            )
            parts.callback(sites[-1].close)
        take_many(Camera(chromium, chosen.to), sites[1])
        take_noted(Camera(chromium, chosen.to), sites[2])
        take_few(Camera(chromium, chosen.to), sites[0], store)
    return 0


class Camera:
    """Takes pictures of the page in both lights, on both screens.

    Parameters:
        chromium: shows the page.
        folder: for the pictures.
    """

    def __init__(self, chromium: Chromium, folder: Path) -> None:
        self.chromium, self._folder = chromium, folder

    def take(self, name: str) -> None:
        """Write `<name>-<screen>-<light>.png` for each screen and each light."""
        lights: tuple[Light, ...] = ("light", "dark")
        for screen, (width, height) in SCREENS.items():
            for light in lights:
                self.chromium.resize(width, height, light)
                self.chromium.run("scrollTo(0, 0)")
                path = self._folder / f"{name}-{screen}-{light}.png"
                self.chromium.driver.save_screenshot(str(path))
                print(path)


def take_many(camera: Camera, site: Site) -> None:
    """200 recordings at a time."""
    for number in range(MANY):
        folder = site.folder / f"site {number // 40 + 1}"
        folder.mkdir(exist_ok=True)
        (folder / f"camera {number:03}.mp4").write_bytes(os.urandom(10_000 + 100 * number))
    daemon = site.daemon()
    camera.chromium.open(daemon.wait_for("serving")["url"])
    camera.chromium.wait(f"return document.querySelectorAll('.row').length === {MANY}")
    camera.take("many")
    daemon.terminate()


def put_aged(site: Site, name: str) -> None:
    """Move a recording from beside the watched folder into it, as if it had ended two hours ago."""
    os.utime(site.base / name, (time.time() - 7200,) * 2)
    (site.folder / name).parent.mkdir(exist_ok=True)
    (site.base / name).rename(site.folder / name)


def take_noted(camera: Camera, site: Site) -> None:
    """What is no clear yes: nothing recorded yet, then what no player opens and what was cut short."""
    chromium = camera.chromium
    (site.folder / "dashcam.mkv").write_bytes(b"x")
    chromium.open(site.daemon().wait_for("serving")["url"])
    chromium.wait(IS, "empty")
    camera.take("empty")
    for name, seconds in ENDED.items():
        record(site.base / name, seconds)
        put_aged(site, name)
    killed = site.base / "cam3/garage 13-00.mp4"
    killed.parent.mkdir()
    killed.write_bytes(box(b"ftyp", b"isom", bytes(4)) + mdat(8_000_000))
    put_aged(site, "cam3/garage 13-00.mp4")
    chromium.wait(IS, "attention")
    cut, other = site.folder / "cam4/gate 14-00.mp4", site.folder / "cam4/other.mp4"
    cut.parent.mkdir()
    cut.write_bytes(os.urandom(25_000_000))
    chromium.wait("return document.body.textContent.includes('21.0 MB of 25.0 MB in S3')")
    other.write_bytes(bytes(1000))
    other.replace(cut)
    chromium.wait("return document.getElementById('verdict').textContent.startsWith('Not quite')")
    camera.take("attention")


def take_few(camera: Camera, site: Site, store: RcloneS3) -> None:
    """What a small set-up sees on a good day and on bad ones."""
    chromium = camera.chromium
    for name, seconds in ENDED.items():
        record(site.folder / name, seconds)
    daemon = site.daemon(prelude=SHORT_KEYS)
    chromium.open(daemon.wait_for("serving")["url"])
    chromium.wait(f"return document.querySelectorAll('[data-kind=safe].row').length === {len(ENDED)}")
    camera.take("safe")
    with growing(site.folder):
        playable = "return document.querySelectorAll('#group-under-way .play:not([hidden])').length"
        chromium.wait(f"{playable} === {len(GROWING)}")
        chromium.wait(IS, "recording")
        camera.take("recording")
        chromium.run("document.querySelector('#group-ended .play').focus()")
        chromium.press(Keys.ENTER)  # a script may not start a video
        chromium.wait("return document.getElementById('video').currentTime > 2")
        camera.take("player")
        chromium.run("document.getElementById('player').close()")
        failing = site.folder / FAILING
        failing.parent.mkdir()
        copied(failing, 6_000_000)
        chromium.wait("return document.querySelectorAll('#group-failed .row').length === 1")
        camera.take("failed")
        failing.unlink()
        store.stop()
        chromium.wait("return document.getElementById('services').textContent.includes('failing')")
        camera.take("s3-down")
        daemon.kill()
        chromium.wait(IS, "unknown")
        camera.take("no-answer")


def record(path: Path, seconds: int) -> None:
    """Record a test pattern with ffmpeg."""
    path.parent.mkdir(exist_ok=True)
    picture = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25")
    codec = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "8M")
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", *picture)
    subprocess.run((*command, "-t", str(seconds), *codec, str(path)), check=True, stdin=subprocess.DEVNULL)


@contextmanager
def growing(folder: Path) -> Iterator[None]:
    """Write recordings at the rates of `GROWING` meanwhile."""
    stop = threading.Event()

    with ThreadPoolExecutor(len(GROWING)) as recorders:
        for name, rate in GROWING.items():
            recorders.submit(copied, folder / name, GROWING_BYTES, at_rate(rate, 0, stop))
        try:
            yield
        finally:
            stop.set()


if __name__ == "__main__":
    sys.exit(main())
