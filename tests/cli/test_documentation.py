"""The examples of docs/cli.md are run, in their order, and print what the page says."""

import logging
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest

import logs
from cli import app
from tests.support.daemon_process import ROOT, Site
from tests.support.servers import RcloneS3, ValkeyServer

PAGE = (ROOT / "docs" / "cli.md").read_text()

FILM = "testsrc=duration=2:size=160x120:rate=5"


def examples() -> list[tuple[str, list[str]]]:
    """The commands of the page, each with the lines that it prints there."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, *printed = part.splitlines()
            found.append((command, printed))
    return found


def spelled(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, hashes and spaces."""
    lines = (re.sub(r"\d+", "0", re.sub(r"[0-9a-f]{12,}", "0", line)) for line in text.splitlines())
    return [" ".join(re.sub(r"(0[0:.-]*)+ ?(bytes|kB|MB)?(/s)?", "0", line).split()) for line in lines]


@pytest.fixture
def site(
    tmp_path: Path,
    valkey: ValkeyServer,
    rclone: RcloneS3,
    redis_namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """What the page tells of: two cameras with three recordings, all of them stored."""
    site = Site(tmp_path, valkey, rclone, redis_namespace)
    rclone.client.create_bucket(Bucket=site.bucket)
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_secrets", logs._secrets)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    for path in ("nvr/cam05/1.mp4", "nvr/cam05/2.mp4", "nvr/cam06/1.mp4"):
        (site.folder / path).parent.mkdir(parents=True, exist_ok=True)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", FILM]
        subprocess.run([*command, str(site.folder / path)], check=True, stdin=subprocess.DEVNULL)
    site.view.scan()
    site.view.fall_idle()
    yield site
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)
    site.close()


def test_the_examples_print_what_the_page_says(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    commands = examples()
    assert len(commands) > 10
    for command, printed in commands:
        *program, arguments = *shlex.split(command)[:2], shlex.split(command)[2:]
        assert program == ["python", "main.py"]
        code = app.main(arguments)
        out, err = capfd.readouterr()
        assert spelled(out + err) == spelled("\n".join(printed)), f"{command}\n{out}{err}"
        assert code == ("error: " in err), command
