"""Recordings play in a real Chromium, out of chunks in a real S3: finished ones, and one that still grows."""

import base64
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest
from selenium.webdriver import Keys

from tests.support import chromium as fixtures
from tests.support.chromium import Chromium, MakeSite, opened
from tests.support.daemon_process import Site
from tests.support.harness import CHUNK

# Fixtures of this file, too: one browser and one set of folders for all its tests.
browser, chromium, make_site = fixtures.browser, fixtures.chromium, fixtures.make_site

pytestmark = pytest.mark.browser

SECONDS = 12
KINDS = {
    "moov last": (),
    "moov first": ("-movflags", "+faststart"),
    "fragmented": ("-movflags", "+frag_keyframe+empty_moov"),
}

VIDEO = "const video = document.getElementById('video');"
PLAYING_AT = f"{VIDEO} return !video.paused && video.currentTime > arguments[0]"
FRAMES = f"{VIDEO} return video.getVideoPlaybackQuality().totalVideoFrames"
NOTE = "document.getElementById('player-note').textContent"
BUFFERED_UNTIL = f"{VIDEO} return video.buffered.length ? video.buffered.end(0) : 0"

TYPE_OF = """
const { findMovie, typeOf } = await import('./movie.js');
return typeOf(findMovie(Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0))));
"""


class Recorder:
    """Makes recordings of 12 s and about 11 MB, two chunks and a tail; encodes once.

    Parameters:
        folder: a folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._encoded = folder / "encoded.mp4"
        picture = ("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25")
        sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
        video = ("-c:a", "aac", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
        rate = ("-b:v", "7.5M", "-minrate", "7.5M", "-maxrate", "7.5M", "-bufsize", "7.5M")
        padded = ("-x264-params", "nal-hrd=cbr")  # as cameras with a constant rate do
        _ffmpeg(*picture, *sound, "-t", str(SECONDS), *video, *rate, *padded, str(self._encoded))

    def record(self, kind: str) -> bytes:
        path = self._encoded.with_name("recorded.mp4")
        _ffmpeg("-i", str(self._encoded), "-c", "copy", *KINDS[kind], str(path))
        return path.read_bytes()


def _ffmpeg(*arguments: str) -> None:
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """What makes the recordings of this file."""
    return Recorder(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def site(make_site: MakeSite, recorder: Recorder) -> Site:
    """A folder with a complete recording of each kind, and a daemon."""
    site = make_site()
    for kind in KINDS:
        (site.folder / f"{kind}.mp4").write_bytes(recorder.record(kind))
    site.daemon()
    site.wait_until_stored(*(f"{kind}.mp4" for kind in KINDS))
    return site


def play(chromium: Chromium, stream_id: str) -> None:
    """Press the play button of a recording, as somebody does who has no mouse."""
    row = "[...document.querySelectorAll('.row')].find(row => row.dataset.id === arguments[0])"
    chromium.wait(f"const row = {row}; return row && !row.querySelector('.play').hidden", stream_id)
    chromium.run(f"{row}.querySelector('.play').focus()", stream_id)
    chromium.press(Keys.ENTER)


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_recording_plays_and_seeks(chromium: Chromium, site: Site, kind: str) -> None:
    opened(chromium, site.daemons[0], "safe")
    play(chromium, f"{kind}.mp4@1")
    chromium.wait(PLAYING_AT, 0.2)
    chromium.run(f"{VIDEO} video.currentTime = 0.8 * {SECONDS}")
    before = chromium.run(FRAMES)
    chromium.wait(PLAYING_AT, 0.8 * SECONDS + 0.3)
    assert chromium.run(FRAMES) > before > 0
    assert chromium.run(f"{VIDEO} return [video.videoWidth, video.videoHeight]") == [320, 180]
    chromium.press(Keys.ESCAPE)
    chromium.wait(f"{VIDEO} return !video.hasAttribute('src')", why="it still loads")
    assert not chromium.run("return document.getElementById('player').open")


@contextmanager
def recording(path: Path, whole: bytes, chunks: int = 1) -> Iterator[threading.Event]:
    """A recorder that has written some chunks and goes on slowly; in full once the event is set."""
    go_on = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(whole[: chunks * CHUNK + 1000])
            while not go_on.wait(0.2):  # not silent for long enough to look ended
                file.write(whole[file.tell() : file.tell() + 4096])
            file.write(whole[file.tell() :])

    with ThreadPoolExecutor(1) as recorder:
        done = recorder.submit(write)
        try:
            yield go_on
        finally:
            go_on.set()
        done.result()


def test_a_fragmented_recording_plays_on_as_it_grows(
    chromium: Chromium, site: Site, recorder: Recorder
) -> None:
    whole = recorder.record("fragmented")
    with recording(site.folder / "growing.mp4", whole) as go_on:
        opened(chromium, site.daemons[0], "recording")
        play(chromium, "growing.mp4@1")
        chromium.wait(PLAYING_AT, 0.2)
        there = chromium.run(BUFFERED_UNTIL)
        assert 3 < there < SECONDS - 3
        chromium.run(f"{VIDEO} video.currentTime = arguments[0] - 0.3", there)
        go_on.set()
        chromium.wait(PLAYING_AT, there + 0.5)
    chromium.wait(f"{VIDEO} return Math.abs(video.duration - {SECONDS}) < 0.2", why="it was not told its end")
    assert chromium.run(FRAMES) > 0
    site.wait_until_stored("growing.mp4")
    chromium.wait(f"return {NOTE}.startsWith('The recording has ended')")


def test_a_long_recording_that_grows_plays_what_is_recorded_now_and_on_request_from_its_beginning(
    chromium: Chromium, site: Site, recorder: Recorder
) -> None:
    whole = recorder.record("fragmented")
    with recording(site.folder / "long.mp4", whole, chunks=2):
        opened(chromium, site.daemons[0], "recording")
        chromium.wait(
            "return document.querySelector('.row .amount-text').textContent.startsWith('10.5 MB of')"
        )
        play(chromium, "long.mp4@1")
        chromium.wait(PLAYING_AT, SECONDS / 2)
        assert chromium.run(f"{VIDEO} return video.buffered.start(0)") > SECONDS / 2
        assert chromium.text("#player-jump") == "Play from the beginning"
        chromium.run("document.getElementById('player-jump').focus()")
        chromium.press(Keys.ENTER)
        chromium.wait(f"{VIDEO} return video.buffered.length && video.buffered.start(0) < 0.1")
        chromium.wait(f"{VIDEO} return !video.paused && video.currentTime > 0.2 && video.currentTime < 3")
        assert chromium.text("#player-jump") == "Play what is recorded now"


def test_a_growing_recording_that_no_browser_can_play_yet_says_so(
    chromium: Chromium, site: Site, recorder: Recorder
) -> None:
    whole = recorder.record("moov last")
    with recording(site.folder / "not-yet.mp4", whole):
        opened(chromium, site.daemons[0], "recording")
        play(chromium, "not-yet.mp4@1")
        chromium.wait(f"return {NOTE}.includes('has ended, not before')")
        assert chromium.run(f"{VIDEO} return video.hasAttribute('src')") is False


@pytest.mark.parametrize(
    ("video", "audio"),
    [("libx264", "aac"), ("libx265", "libopus"), ("libaom-av1", "flac"), ("libvpx-vp9", "ac3")],
)
def test_a_browser_is_told_the_codecs_by_the_names_that_ffmpeg_gives_them(
    chromium: Chromium, site: Site, tmp_path: Path, video: str, audio: str
) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=5")
    sound = ("-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", "0.4")
    codecs = ("-c:v", video, "-pix_fmt", "yuv420p", "-c:a", audio, "-strict", "-2")
    quiet = ("-x265-params", "log-level=none", "-tag:v", "hvc1") if video == "libx265" else ()
    dash = ("-f", "dash", "-dash_segment_type", "mp4", str(tmp_path / "all.mpd"))
    _ffmpeg(*picture, *sound, *codecs, *quiet, *dash)
    names = re.findall('codecs="([^"]*)"', (tmp_path / "all.mpd").read_text())
    opened(chromium, site.daemons[0], "safe")
    for stream, (kind, name) in enumerate(zip(("video", "audio"), names, strict=True)):
        head = (tmp_path / f"init-stream{stream}.m4s").read_bytes()
        told = chromium.run(TYPE_OF, base64.b64encode(head).decode())
        assert told == f'{kind}/mp4; codecs="{name}"'
