"""`make record`: a live recording for a first look at the daemon, made by ffmpeg in real time."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]

# A constant rate, padded: 20 s are 30 MB, so chunks of 10 MiB go up while it still records.
_BITRATE = "12M"
_RATE = ["-b:v", _BITRATE, "-minrate", _BITRATE, "-maxrate", _BITRATE, "-bufsize", _BITRATE]
_CODECS = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-x264-params", "nal-hrd=cbr"]


def main() -> int:
    """Record, and say what to look at meanwhile and afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long (default: 20)")
    parser.add_argument("--folder", type=Path, default=Path("input"), help="where to (default: ./input)")
    chosen = parser.parse_args()
    path = chosen.folder / f"test-pattern-{time.strftime('%Y%m%d-%H%M%S')}.mp4"
    stored = Path("data/objects/videos") / path.name / "g0001-*"
    print(f"Recording {chosen.seconds:g} s of a test pattern, live, into {path}")
    print(f"Look at {stored}/chunks/ while it grows.", flush=True)
    code = record(path, chosen.seconds)
    if code == 0:
        print("After 30 s of silence the daemon reads it all again, mends what ffmpeg has patched, and")
        print(f"writes {stored}/metadata.json. Then these two print the same:")
        print(f"  sha256sum < {path}")
        print(f"  cat {stored}/chunks/*.part | sha256sum")
    return code


def record(path: Path, seconds: float) -> int:
    """Run ffmpeg as a recorder would; Ctrl-C ends the recording properly. Its exit code."""
    picture = ["-re", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25"]
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
    output = ["-t", f"{seconds}", *_CODECS, *_RATE, "-c:a", "aac", str(path)]
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error"]
    program += ["-stats"] if sys.stderr.isatty() else []
    with subprocess.Popen([*program, *picture, *sound, *output], stdin=subprocess.DEVNULL) as ffmpeg:
        try:
            return ffmpeg.wait()
        except KeyboardInterrupt:  # the terminal sent it to ffmpeg, too, which now writes its moov
            return ffmpeg.wait()


if __name__ == "__main__":
    sys.exit(main())
