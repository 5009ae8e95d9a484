import contextlib
import fcntl
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import boto3
import pytest
from botocore.config import Config
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

import logs
from logs import add_secret, configure_logging, get_logger, redact
from tests.support.servers import BUSY_MACHINE_SECONDS

Format = Literal["text", "json"]
FORMATS: list[Format] = ["text", "json"]
SECRET = "correct horse battery"
log = get_logger("tests.logs")

# Any name that a Linux file may have, and any text, lone surrogates too.
any_text = st.one_of(
    st.binary(min_size=1, max_size=255).map(os.fsdecode), st.text(st.characters(exclude_categories=[]))
)
any_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(), st.binary(), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def logging_is_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    logging.captureWarnings(capture=False)
    logs._secrets = ()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, logs._StderrHandler)]
    root.setLevel(level)
    for name in ("boto3", "botocore", "s3transfer", "urllib3", "watchdog"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@contextlib.contextmanager
def stderr_as(stream: io.TextIOBase | Any) -> Iterator[None]:
    before, sys.stderr = sys.stderr, stream
    try:
        yield
    finally:
        sys.stderr = before


@pytest.fixture
def written(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[[], str]:
    """Take what was written to stderr since the last call."""
    return lambda: capfdbinary.readouterr().err.decode("utf-8")


def only_line(text: str) -> str:
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1, text  # splitlines knows U+2028 and its like as well
    return text.removesuffix("\n")


def fail(message: str) -> None:
    raise ValueError(message)


def test_an_event_is_one_line_for_people(written: Callable[[], str]) -> None:
    configure_logging("INFO", "text")
    log.info("chunk stored", stream="camera1/a.mp4@1", index=3, size_bytes=10485760)
    line = only_line(written())
    when, rest = line[:24], line[24:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert rest == " INFO  chunk stored  stream=camera1/a.mp4@1 index=3 size_bytes=10485760"


def test_an_event_is_one_object_for_machines(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    log.warning("chunk stored", stream="kamera/ä.mp4@1", index=3, parts=("a", 1), nothing=None, ok=True)
    event = json.loads(only_line(written()))
    assert list(event)[:3] == ["time", "level", "event"]
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "WARNING",
        "event": "chunk stored",
        "stream": "kamera/ä.mp4@1",
        "index": 3,
        "parts": ["a", 1],
        "nothing": None,
        "ok": True,
    }


def test_the_time_is_utc_to_the_millisecond(written: Callable[[], str]) -> None:
    configure_logging("INFO", "text")
    made = {"created": 1767268800.0239, "msg": "x", "levelno": logging.INFO, "levelname": "INFO"}
    logging.getLogger().handle(logging.makeLogRecord(made))
    assert written().startswith("2026-01-01T12:00:00.023Z INFO  x")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a=b", '"a=b"'),
        ("a\nb\x1b[31m", r'"a\nb\x1b[31m"'),
        ("\u202egnp.4pm", r'"\u202egnp.4pm"'),
        (os.fsdecode(b"\xff.mp4"), r'"\udcff.mp4"'),
        (Path("/a/b.mp4"), "/a/b.mp4"),
        (["*.mp4", 2], '["*.mp4", 2]'),
        (b"x.mp4", "x.mp4"),
        ("größe", "größe"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (None, "null"),
    ],
)
def test_a_value_in_text_is_quoted_only_when_it_must_be(
    written: Callable[[], str], value: object, shown: str
) -> None:
    configure_logging("INFO", "text")
    log.info("x", value=value)
    assert only_line(written()).endswith(f"x  value={shown}")


@pytest.mark.parametrize("log_format", FORMATS)
def test_any_name_is_one_line_of_valid_utf8(written: Callable[[], str], log_format: Format) -> None:
    configure_logging("INFO", log_format)

    @given(event=any_text, key=any_text, value=any_value)
    @example(event="\x7f", key="\x7f", value={"\udcff": "\x7f"})
    def check(event: str, key: str, value: object) -> None:
        log.info(event, **{f"k{key}": value})
        line = only_line(written())
        assert line.isprintable()
        if log_format == "json":  # other languages' readers refuse half a surrogate pair
            json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")

    check()


def test_any_name_comes_back_from_json(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")

    @given(path=any_text)
    def check(path: str) -> None:
        log.info("found", path=path)
        assert json.loads(only_line(written()))["path"] == redact(
            path.encode("utf-8", "backslashreplace").decode()
        )

    check()


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_name_cannot_pretend_to_be_another_value(written: Callable[[], str], log_format: Format) -> None:
    configure_logging("INFO", log_format)
    log.info("found", path='a" state=complete x="\\')
    line = only_line(written())
    if log_format == "json":
        assert set(json.loads(line)) == {"time", "level", "event", "path"}
    else:
        assert line.endswith(r'path="a\" state=complete x=\"\\"')


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_secret_is_never_written_in_any_spelling(written: Callable[[], str], log_format: Format) -> None:
    configure_logging("DEBUG", log_format, ["first-secret"])

    @given(secret=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=12, max_size=40))
    def check(secret: str) -> None:
        logs._secrets = ()
        add_secret(secret)
        event = f"see {secret}"
        log.info(event, a=secret, b=[{"c": secret, secret: 1}], d=repr({"k": secret}), e=Path(secret))
        log.info("quoted", url=quote(secret, safe=""), body=json.dumps({"k": secret}))
        logging.getLogger("urllib3").warning("pool %s %r", secret, secret)
        try:
            fail(f"not {secret}")
        except ValueError:
            log.exception("bug")
        text = written()
        shown = [text]
        if log_format == "json":
            shown = [str(value) for line in text.splitlines() for value in json.loads(line).values()]
        for spelling in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")):
            assert not any(spelling in one for one in shown)
        assert text.count("***") >= 10

    check()


@pytest.mark.parametrize("log_format", FORMATS)
def test_secrets_of_the_start_and_of_later_are_both_hidden(
    written: Callable[[], str], log_format: Format
) -> None:
    configure_logging("INFO", log_format, ["from-the-start"])
    add_secret("renewed-later")
    configure_logging("INFO", log_format)
    log.info("x", a="from-the-start", b="(renewed-later)", c=["renewed-later"])
    line = only_line(written())
    assert "start" not in line
    assert "later" not in line
    assert line.count("***") == 3


def test_a_short_secret_does_not_blank_out_the_logs() -> None:
    add_secret("a")
    add_secret("")
    assert redact("camera") == "camera"


def test_a_secret_inside_another_does_not_leave_the_rest_of_it() -> None:
    add_secret("open")
    add_secret("opensesame")
    add_secret("sesame")
    assert redact("opensesame, open") == "***, ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:pw@host:6379/0", "redis://***@host:6379/0"),
        ("at redis://:p@w@host, retry", "at redis://***@host, retry"),
        ("http://h/bucket/a.mp4@1", "http://h/bucket/a.mp4@1"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A/b, Signature=c", "Authorization: ***"),
        ("{'authorization': 'Bearer x', 'Host': 'h'}", "{'authorization': ***, 'Host': 'h'}"),
        ("b'Authorization': b'AWS4 x, y'}", "b'Authorization': ***}"),
        ("?a=1&X-Amz-Signature=abc&b=2", "?a=1&X-Amz-Signature=***&b=2"),
        ("x-amz-credential=AK%2F2026 next", "x-amz-credential=*** next"),
        ("{'X-Amz-Security-Token': 'abc/+='}", "{'X-Amz-Security-Token': '***'}"),
        ("X-Amz-Security-Token%3Dabc", "X-Amz-Security-Token%3D***"),
        ("camera1/a.mp4@1", "camera1/a.mp4@1"),
    ],
)
def test_what_opens_a_door_is_hidden_without_being_known(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_presigned_url_of_boto3_gives_nothing_away(written: Callable[[], str]) -> None:
    session = boto3.Session("AKIAOPENSESAME", "not/shown", "the-token", region_name="eu-central-1")
    client = session.client("s3", config=Config(signature_version="s3v4"))
    url = client.generate_presigned_url("get_object", Params={"Bucket": "videos", "Key": "a.mp4"})
    signature = re.search("X-Amz-Signature=([0-9a-f]+)", url)
    assert signature
    configure_logging("INFO", "text")
    log.info("asked", url=url)
    line = only_line(written())
    assert "videos" in line
    for secret in ("AKIAOPENSESAME", "the-token", signature[1]):
        assert secret in url
        assert secret not in line


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_key_that_names_a_secret_hides_its_value(written: Callable[[], str], log_format: Format) -> None:
    configure_logging("INFO", log_format)
    log.info("x", password="open", headers={"Authorization": "open", "Host": "fine"})
    line = only_line(written())
    assert "open" not in line
    assert "fine" in line


def test_redaction_is_quick_on_hostile_text() -> None:
    for piece in (
        "a",
        "://",
        "://a:",
        "password=",
        "://@",
        "authorization",
        "x-amz-signature=",
        "x-amz-credential: ",
    ):
        text = f"x-amz- ://@ authorization {piece * (200_000 // len(piece))}"
        assert len(redact(text)) > 0  # pytest's timeout would end a quadratic search


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_bug_shows_its_traceback(written: Callable[[], str], log_format: Format) -> None:
    configure_logging("INFO", log_format, [SECRET])
    try:
        fail(f"{SECRET}\n2026-01-01T00:00:00.000Z INFO  all is well\x1b[2J")
    except ValueError:
        log.exception("worker died", worker=1)
        log.error("the same", exc_info=True)  # noqa: G201 -- the other way to say it
    text = written()
    assert SECRET not in text
    if log_format == "json":
        for line in text.splitlines():
            trace = json.loads(line)["exception"]
            assert trace.startswith("Traceback (most recent call last):\n")
            assert "in fail\n" in trace
            assert "ValueError: ***\n2026" in trace
    else:
        lines = text.splitlines()
        assert [line[25:] for line in lines if not line.startswith("    ")] == [
            "ERROR worker died  worker=1",
            "ERROR the same",
        ]
        assert text.count("    Traceback (most recent call last):") == 2
        assert r"INFO  all is well\x1b[2J" in text
        assert text.replace("\n", "").isprintable()


def test_below_error_an_exception_is_a_word_in_the_line(written: Callable[[], str]) -> None:
    configure_logging("INFO", "text", [SECRET])
    log.warning("will try again", exc_info=ValueError(f"no\n{SECRET}"))
    assert only_line(written()).endswith(r'WARN  will try again  exception="ValueError: no\n***"')


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("name", ["botocore.auth", "urllib3.connectionpool", "watchdog", "waitress", "redis"])
def test_the_libraries_use_the_same_lines(written: Callable[[], str], log_format: Format, name: str) -> None:
    configure_logging("INFO", log_format)
    logging.getLogger(name).error("cannot reach %s", "redis://u:p@h\n")
    line = only_line(written())
    if log_format == "json":
        event = json.loads(line)
        assert (event["event"], event["logger"], event["level"]) == (
            "cannot reach redis://***@h",
            name,
            "ERROR",
        )
    else:
        assert line[25:] == f"ERROR cannot reach redis://***@h  logger={name}"


@pytest.mark.parametrize("name", ["boto3", "botocore.auth", "urllib3.connectionpool", "s3transfer.tasks"])
def test_the_aws_libraries_stay_quiet_at_debug(written: Callable[[], str], name: str) -> None:
    configure_logging("DEBUG", "text")
    logging.getLogger(name).info("StringToSign")
    assert written() == ""
    logging.getLogger(name).warning("Retrying")
    assert "Retrying" in only_line(written())


def test_a_viewer_who_closes_a_video_is_no_news(written: Callable[[], str]) -> None:
    configure_logging("INFO", "text")
    logging.getLogger("waitress").info("Client disconnected while serving /play/a.mp4@1")
    assert written() == ""


def test_a_library_exception_has_its_traceback_in_the_block(written: Callable[[], str]) -> None:
    configure_logging("INFO", "text")
    try:
        fail("inside")
    except ValueError:
        logging.getLogger("waitress").exception("oops")
    assert written().rstrip().endswith("    ValueError: inside")


def test_warnings_become_lines(written: Callable[[], str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("INFO", "text")
        warnings.warn("careful", UserWarning, stacklevel=1)
        line = only_line(written())
        logging.captureWarnings(capture=False)
    assert "WARN " in line
    assert "UserWarning: careful" in line


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("DEBUG", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("ERROR", ["error"]),
    ],
)
def test_the_level_decides_what_is_written(written: Callable[[], str], level: str, seen: list[str]) -> None:
    configure_logging("DEBUG", "json")
    log.debug("used before")
    written()
    configure_logging(level, "json")
    for method in (log.debug, log.info, log.warning, log.error):
        method(method.__name__)
    assert [json.loads(line)["event"] for line in written().splitlines()] == seen


def test_the_thread_is_named_at_debug_only(written: Callable[[], str]) -> None:
    configure_logging("DEBUG", "json")
    log.info("x")
    assert json.loads(written())["thread"] == "MainThread"
    configure_logging("INFO", "json")
    log.info("x")
    assert "thread" not in json.loads(written())


def test_configuring_twice_does_not_write_twice(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    configure_logging("INFO", "text")
    log.info("once")
    assert only_line(written()).endswith("INFO  once")


def test_a_value_cannot_take_the_place_of_time_or_level(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    log.info("x", level="harmless", time=5, exception="e")
    event = json.loads(written())
    assert (event["level"], event["level_"], event["time_"], event["exception_"]) == (
        "INFO",
        "harmless",
        5,
        "e",
    )


def test_bound_values_are_in_every_line(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    bound = log.bind(stream="a@1")
    bound.info("one")
    bound.info("two")
    assert [json.loads(line)["stream"] for line in written().splitlines()] == ["a@1", "a@1"]


def test_a_line_that_cannot_be_formatted_says_so_and_raises_nothing(
    written: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would raise
    configure_logging("INFO", "text")
    logging.getLogger("library").info("got %d", "text")
    log.info("found", value=Broken())
    logging.getLogger("library").info(Broken())
    first, second, third = written().splitlines()
    assert first[25:] == "INFO  got %d (this log line cannot be formatted: TypeError)  logger=library"
    assert "found (this log line cannot be formatted: RuntimeError)" in second
    assert "Broken (this log line cannot be formatted: RuntimeError)" in third


def test_a_value_that_holds_itself_is_no_endless_loop(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    loop: list[object] = []
    loop.append(loop)
    log.info("x", loop=loop)
    assert "..." in only_line(written())


def test_colours_are_for_terminals_only(written: Callable[[], str]) -> None:
    master, slave = os.openpty()
    with open(slave, "w") as terminal, stderr_as(terminal):
        configure_logging("INFO", "text")
        log.info("x", path="\x1b[31m")
        shown = os.read(master, 4096).decode()
    os.close(master)
    assert "\x1b[32mINFO \x1b[0m x" in shown
    assert r"\x1b[31m" in shown
    configure_logging("INFO", "text")
    log.info("x")
    assert "\x1b" not in written()


def test_a_reader_that_went_away_raises_nothing_and_the_exit_code_stays(tmp_path: Path) -> None:
    program = (
        "from logs import configure_logging, get_logger\n"
        "configure_logging('INFO', 'text')\n"
        "input()\n"
        "for number in range(100): get_logger('x').info('after', number=number)\n"
        "print('alive')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stderr
    child.stderr.close()
    child.stderr = None
    out, _ = child.communicate(b"\n", timeout=30)
    assert (out, child.returncode) == (b"alive\n", 0)


@pytest.mark.parametrize("state", ["closed", "none"])
def test_a_closed_stderr_raises_nothing(state: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    with stderr_as(stream if state == "closed" else None):
        configure_logging("INFO", "text")
        log.info("nobody hears this")


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    with stderr_as(stream):
        configure_logging("INFO", "text")
        log.info("x")
    assert only_line(stream.getvalue()).endswith("INFO  x")


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"#" * 4096)
    os.set_blocking(pipe, True)


def drain(pipe: int) -> bytes:
    os.set_blocking(pipe, False)
    content = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(pipe, 65536):
            content += piece
    return content


def test_a_reader_that_stands_still_stops_nothing_and_is_told_how_much_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_STALL_SECONDS", 0.2)
    reader, writer = os.pipe()
    with open(writer, "w") as stream, stderr_as(stream):
        configure_logging("INFO", "text")
        fill(writer)
        started = time.monotonic()
        for number in range(300):
            log.info("lost", number=number)
        assert time.monotonic() - started < BUSY_MACHINE_SECONDS, "only the first line may wait"
        drain(reader)
        log.info("heard")
        first, second = drain(reader).decode().splitlines()
    os.close(reader)
    assert first[25:] == "WARN  300 log lines were lost  logger=logs"
    assert second[25:] == "INFO  heard"


def test_a_line_cut_short_by_a_full_pipe_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_STALL_SECONDS", 0.01)
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    with open(writer, "w") as stream, stderr_as(stream):
        configure_logging("INFO", "text")
        log.info("long", value="x" * (size + 4096))
        drain(reader)
        log.info("heard")
        _, lost, heard = drain(reader).decode().split("\n", 2)
    os.close(reader)
    assert lost[25:] == "WARN  1 log lines were lost  logger=logs"
    assert heard[25:] == "INFO  heard\n"


def test_other_tests_can_capture_events() -> None:
    log.info("cached before")
    with capture_logs() as captured:
        log.info("chunk stored", index=1)
    assert captured == [{"event": "chunk stored", "index": 1, "log_level": "info"}]


def test_tracebacks_are_those_of_python(written: Callable[[], str]) -> None:
    configure_logging("INFO", "json")
    try:
        try:
            fail("first")
        except ValueError as error:
            raise KeyError("second") from error
    except KeyError as error:
        log.exception("bug")
        expected = "".join(traceback.format_exception(error)).rstrip()
    assert json.loads(written())["exception"] == expected
