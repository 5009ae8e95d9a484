"""Completion in a real bash."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.archive_parts import Shelf, noise
from tests.support.daemon_process import MAIN
from tests.support.servers import RcloneS3

PRESS_TAB = """
eval "$(vcu completion bash)"
complete_line() {
    COMP_WORDS=($1); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=()
    $(complete -p vcu | sed 's/.*-F \\([^ ]*\\) .*/\\1/') vcu
    echo "${COMPREPLY[@]}"
}
complete_line "vcu ver"
complete_line "vcu verify nvr/cam05/"
"""


def test_bash_completes_commands_and_names_of_recordings(
    tmp_path: Path, rclone: RcloneS3, bucket: str
) -> None:
    shelf = Shelf(rclone, bucket)
    for path in ("nvr/cam05/1.mp4", "nvr/cam05/2.mp4", "nvr/cam06/1.mp4"):
        shelf.store_complete(path, noise(1))
    program = tmp_path / "vcu"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {MAIN} "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, **shelf.settings(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.splitlines() == ["verify", "nvr/cam05/1.mp4 nvr/cam05/2.mp4"], done.stderr
