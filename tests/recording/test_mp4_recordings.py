"""The facts of real recordings by ffmpeg: whole, killed, cut and mutated."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.mp4 import MediaFacts, read_media_facts
from recording.mp4_boxes import MediaError
from tests.support.mp4_boxes import FUZZ, CountingFile, facts_of, facts_or_reason, top_level

H264 = "-c:v libx264 -preset ultrafast -g 10 -c:a aac -b:a 16k"
FORMS = {
    "default.mp4": H264,
    "faststart.mp4": f"{H264} -movflags +faststart",
    "moov_size.mp4": f"{H264} -moov_size 20000",
    "fragmented.mp4": f"{H264} -movflags frag_keyframe+empty_moov",
    "first_in_moov.mp4": f"{H264} -movflags frag_keyframe",
    "default_base_moof.mp4": f"{H264} -movflags frag_keyframe+empty_moov+default_base_moof",
    "dash.mp4": f"{H264} -movflags dash+frag_keyframe",
    "hybrid.mp4": f"{H264} -movflags +hybrid_fragmented -frag_duration 500000",
    "audio_only.mp4": "-vn -c:a aac -b:a 16k",
    "hevc.mp4": "-an -c:v libx265 -x265-params log-level=none -tag:v hvc1",
    "mpeg4.mp4": "-an -c:v mpeg4",
    "quicktime.mov": H264,
}
FRAGMENTED = {"fragmented.mp4", "first_in_moov.mp4", "default_base_moof.mp4", "dash.mp4"}
PICTURES = "-f lavfi -i testsrc2=s=64x48:r=10"
SOUND = "-f lavfi -i sine=r=8000"


class Recording(NamedTuple):
    content: bytes
    seen_by_ffmpeg: str


def ffmpeg(*arguments: str) -> list[str]:
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *arguments]


def seen_by_ffmpeg(path: Path) -> str:
    """What ffmpeg says about a file: the second opinion on every fact."""
    return subprocess.run(ffmpeg("-i", str(path)), capture_output=True, text=True, check=False).stderr


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """2 s of pictures and 2.5 s of sound in every form that ffmpeg writes."""
    folder = tmp_path_factory.mktemp("recordings")
    made = {}
    for name, options in FORMS.items():
        inputs = f"{PICTURES}:d=2 {SOUND}:d=2.5"
        command = ffmpeg("-loglevel", "error", *inputs.split(), *options.split(), str(folder / name))
        subprocess.run(command, check=True)
        made[name] = Recording((folder / name).read_bytes(), seen_by_ffmpeg(folder / name))
    return made


@pytest.mark.parametrize("form", FORMS)
def test_a_real_recording_has_the_facts_that_ffmpeg_sees(recordings: dict[str, Recording], form: str) -> None:
    seen = recordings[form].seen_by_ffmpeg
    facts = facts_of(recordings[form].content)
    hours, minutes, seconds = re.findall(r"Duration: (\d+):(\d+):([\d.]+)", seen)[0]
    video = re.findall(r"Video: .*?\((\w{4}) / 0x.*?, (\d+)x(\d+)", seen)
    audio = re.findall(r"Audio: .*?\((\w{4}) / 0x", seen)
    assert video or audio
    assert facts.duration_seconds == pytest.approx(
        int(hours) * 3600 + int(minutes) * 60 + float(seconds), abs=0.006
    )
    assert [(facts.video_codec, str(facts.width), str(facts.height))] == (video or [(None, "None", "None")])
    assert [facts.audio_codec] == (audio or [None])
    assert facts.fragmented == (form in FRAGMENTED)
    assert facts.complete


def test_the_default_recording_has_exactly_these_facts(recordings: dict[str, Recording]) -> None:
    assert facts_of(recordings["default.mp4"].content) == MediaFacts(
        duration_seconds=2.5,
        video_codec="avc1",
        audio_codec="mp4a",
        width=64,
        height=48,
        fragmented=False,
        complete=True,
    )


@pytest.mark.parametrize("form", FORMS)
def test_media_bytes_are_never_read(recordings: dict[str, Recording], form: str) -> None:
    file = CountingFile(recordings[form].content)
    read_media_facts(file.read_at, file.size)
    for kind, start, end in top_level(file.content):
        if kind == b"mdat":
            assert not [span for span in file.ranges if span[0] < end and span[1] > start + 8]


def test_facts_are_read_from_an_open_file_by_pread(recordings: dict[str, Recording], tmp_path: Path) -> None:
    path = tmp_path / "recording.mp4"
    path.write_bytes(recordings["default.mp4"].content)
    with path.open("rb") as file:
        facts = read_media_facts(
            lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size
        )
        assert file.tell() == 0
    assert facts.complete


def record_and_kill(path: Path, options: str) -> bytes:
    """Kills ffmpeg when it first says that it wrote something."""
    command = ffmpeg(
        *["-loglevel", "error", "-stats_period", "0.1", "-progress", "pipe:1", "-re"],
        *PICTURES.split(),
        *SOUND.split(),
        *options.split(),
        str(path),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout
        for line in recorder.stdout:
            if line.startswith("total_size=") and int(line.partition("=")[2]) > 2000:
                break
        recorder.send_signal(signal.SIGKILL)
    assert recorder.returncode == -signal.SIGKILL
    return path.read_bytes()


def test_a_recording_whose_recorder_was_killed_has_no_moov(tmp_path: Path) -> None:
    content = record_and_kill(tmp_path / "killed.mp4", f"{H264} -flush_packets 1")
    assert top_level(content)[-1][0] == b"mdat"
    with pytest.raises(MediaError, match="no moov box: the recorder did not close the file"):
        facts_of(content)


def test_a_killed_fragmented_recording_tells_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "killed.mp4"
    options = f"{H264} -frag_duration 100000 -flush_packets 1 -movflags frag_keyframe+empty_moov"
    facts = facts_of(record_and_kill(path, options))
    hours, minutes, seconds = re.findall(r"Duration: (\d+):(\d+):([\d.]+)", seen_by_ffmpeg(path))[0]
    assert (hours, minutes) == ("00", "00")
    assert facts.duration_seconds == pytest.approx(float(seconds), abs=0.25)
    assert facts.duration_seconds
    assert (facts.video_codec, facts.width, facts.fragmented) == ("avc1", 64, True)


def cut_points(content: bytes) -> list[int]:
    """Lengths below that of a file: near the ends of its boxes each of them, elsewhere some."""
    edges = {edge for _, start, end in top_level(content) for edge in (start, end)}
    near = {edge + step for edge in edges for step in range(-20, 21)}
    return sorted(length for length in near | set(range(0, len(content), 101)) if 0 <= length < len(content))


@pytest.mark.parametrize(
    "form", ["default.mp4", "faststart.mp4", "moov_size.mp4", "hybrid.mp4", "quicktime.mov"]
)
def test_a_cut_recording_is_never_complete(recordings: dict[str, Recording], form: str) -> None:
    content = recordings[form].content
    for length in cut_points(content):
        try:
            facts = facts_of(content[:length])
        except MediaError:
            continue
        assert not facts.complete, length


@pytest.mark.parametrize("form", sorted(FRAGMENTED))
def test_a_cut_fragmented_recording_is_complete_only_between_two_fragments(
    recordings: dict[str, Recording], form: str
) -> None:
    content = recordings[form].content
    whole = facts_of(content).duration_seconds
    boxes = top_level(content)
    moov_end = next(end for kind, _, end in boxes if kind == b"moov")
    media_end = 0
    between = set()
    for kind, start, end in boxes:
        media_end = end if kind == b"mdat" else 0 if kind == b"moof" else media_end
        if media_end:
            between |= {start, end} & set(range(media_end, len(content)))
    assert len(between) > 1
    for length in (length for length in cut_points(content) if length >= moov_end):
        facts = facts_of(content[:length])
        assert facts.fragmented
        assert facts.complete == (length in between), length
        assert (facts.duration_seconds or 0) <= (whole or 0)


def test_a_recording_cut_inside_its_moov_says_how_much_is_missing(recordings: dict[str, Recording]) -> None:
    with pytest.raises(MediaError, match="the moov box is cut off: 30 bytes are missing"):
        facts_of(recordings["default.mp4"].content[:-30])


def test_a_fragmented_recording_cut_in_its_last_fragment_counts_whole_moofs(
    recordings: dict[str, Recording],
) -> None:
    content = recordings["fragmented.mp4"].content
    second = [start for kind, start, _ in top_level(content) if kind == b"moof"][1]
    facts = facts_of(content[: second + 100])
    assert facts.duration_seconds == pytest.approx(1.15, abs=0.1)
    assert not facts.complete


@pytest.mark.parametrize("tail", [bytes(4096), bytes(3), b"\x00\x00\x00\x05junk", b"\xff" * 64])
def test_what_is_no_box_after_the_last_one_makes_a_recording_incomplete(
    recordings: dict[str, Recording], tail: bytes
) -> None:
    for form in ("default.mp4", "fragmented.mp4"):
        facts = facts_of(recordings[form].content + tail)
        assert not facts.complete
        assert facts.video_codec == "avc1"
        assert facts.duration_seconds == facts_of(recordings[form].content).duration_seconds


@FUZZ
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_a_mutated_recording_gives_facts_or_a_media_error(
    recordings: dict[str, Recording], data: st.DataObject, form: str
) -> None:
    content = bytearray(recordings[form].content)
    boxes = [span for span in top_level(bytes(content)) if span[0] != b"mdat"]
    for _ in range(data.draw(st.integers(1, 8))):
        _, start, end = data.draw(st.sampled_from(boxes))
        at = data.draw(st.integers(start, end - 1))
        patch = data.draw(
            st.sampled_from([b"\x00", b"\xff", bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", b"\x7f"])
        )
        content[at : at + len(patch)] = patch
    facts_or_reason(bytes(content))


@FUZZ
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_a_recording_with_a_part_lost_gives_facts_or_a_media_error(
    recordings: dict[str, Recording], data: st.DataObject, form: str
) -> None:
    content = recordings[form].content
    lost_from = data.draw(st.integers(0, len(content)))
    lost_to = data.draw(st.integers(lost_from, len(content)))
    facts_or_reason(content[:lost_from] + data.draw(st.sampled_from([b"", bytes(64)])) + content[lost_to:])
