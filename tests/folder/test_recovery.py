"""The watched folder loses events, its observer dies, it comes and goes itself: how watching goes on."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from folder import watch as folder_watch
from folder.watch import RESTART_SECONDS, alarm_on_overflow
from tests.support.pacing import wait_until
from tests.support.watched_folder import Watched, events_of, value, watching

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def watched(root: Path) -> Iterator[Watched]:
    """The folder, watched by events, after its first scan."""
    with watching(root) as watched:
        watched.step()
        watched.forget()
        yield watched


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The events that were logged up to now."""
    caplog.set_level("INFO")
    return lambda: events_of(caplog)


# ---------------------------------------------------------------------- lost events


def overflow(watched: Watched) -> None:
    """Have watchdog's reader receive what the kernel sends when its queue is full."""
    reader: InotifyFD = watched.watch._observer._inotify_fd  # type: ignore[union-attr]
    reader.handle_event(InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b""))  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_an_overflow_is_said_counted_and_made_up_for_by_a_scan_at_every_log_level(
    watched: Watched, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    before = value("watcher_overflows_total")
    caplog.set_level(level)
    caplog.set_level(level, "watchdog")  # as configure_logging does
    with alarm_on_overflow(watched.watch):
        watched.write("a.mp4")
        watched.settled()
        overflow(watched)
    assert value("watcher_overflows_total") == before + 1
    watched.forget()
    watched.step()
    assert "a.mp4" in watched.found
    lines = [record.msg for record in caplog.records if record.name == "folder.watch"]
    assert any("fs.inotify.max_queued_events" in str(line) for line in lines) == (level == "INFO")


def test_the_alarm_leaves_watchdogs_logger_as_it_was(watched: Watched) -> None:
    logger = logging.getLogger("watchdog.observers.inotify_c")
    before = (logger.level, list(logger.filters))
    with alarm_on_overflow(watched.watch):
        assert (logger.level, logger.filters) != before
    assert (logger.level, logger.filters) == before


def test_other_lines_of_watchdog_are_logged_as_they_would_be(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("watchdog.observers.inotify_c")
    with alarm_on_overflow(watched.watch):
        caplog.set_level("ERROR")
        logger.warning("not this")
        caplog.set_level("INFO")
        logger.warning("but this")
    assert [record.getMessage() for record in caplog.records if record.name == logger.name] == ["but this"]


# ---------------------------------------------------------------------- the observer dies


def test_a_dead_emitter_is_replaced(watched: Watched, said: Callable[[], list[str]]) -> None:
    before = value("watcher_restarts_total")
    watched.clock.now += RESTART_SECONDS
    [emitter] = watched.watch._observer.emitters  # type: ignore[union-attr]
    emitter.stop()
    emitter.join(10)
    watched.write("missed.mp4")
    watched.step()
    assert "missed.mp4" in watched.found
    assert "observer started anew" in said()
    assert value("watcher_restarts_total") == before + 1
    watched.write("seen.mp4")
    watched.sees("seen.mp4")


def test_a_dead_observer_is_replaced(watched: Watched) -> None:
    watched.clock.now += RESTART_SECONDS
    watched.watch._observer.stop()  # type: ignore[union-attr]
    watched.watch._observer.join(10)  # type: ignore[union-attr]
    watched.step()
    watched.write("seen.mp4")
    watched.sees("seen.mp4")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_reader_of_the_kernels_events_is_replaced(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.clock.now += RESTART_SECONDS
    reader = watched.watch._observer._inotify_fd  # type: ignore[union-attr]
    with monkeypatch.context() as broken:
        broken.setattr(reader, "handle_event", lambda _: 1 / 0)
        watched.write("missed.mp4")
        reader.join(10)
    watched.step()
    assert "missed.mp4" in watched.found
    watched.write("seen.mp4")
    watched.sees("seen.mp4")


def test_an_observer_that_dies_at_once_is_not_started_all_the_time(watched: Watched) -> None:
    before = value("watcher_restarts_total")
    for _ in range(30):
        observer = watched.watch._observer
        assert observer
        observer.stop()
        observer.join(10)
        watched.step()
    assert value("watcher_restarts_total") - before <= 3
    assert watched.scans <= 4


def test_while_the_observer_is_dead_the_folder_counts_as_unwatched_but_is_scanned(watched: Watched) -> None:
    watched.watch._observer.stop()  # type: ignore[union-attr]
    watched.watch._observer.join(10)  # type: ignore[union-attr]
    watched.write("a.mp4")
    watched.watch.requests.add()
    watched.step()
    assert not watched.watch.watching
    assert value("folder_watched") == 0
    assert "a.mp4" in watched.found
    watched.step(RESTART_SECONDS)
    assert watched.watch.watching
    assert value("folder_watched") == 1


# ---------------------------------------------------------------------- the folder comes and goes


def test_a_folder_that_is_missing_at_the_start_is_waited_for(
    root: Path, said: Callable[[], list[str]]
) -> None:
    root.rmdir()
    with watching(root) as watched:
        for _ in range(3):
            watched.step()
        assert not watched.watch.watching
        assert said() == ["watched folder missing"]
        watched.write("a.mp4")
        watched.step()
        assert watched.watch.watching
        assert list(watched.found) == ["a.mp4"]


@pytest.mark.parametrize("mode", ["native", "polling"])
def test_a_folder_deleted_and_created_again_is_watched_again(
    root: Path, mode: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(folder_watch, "POLLING_SECONDS", 0.02)
    with watching(root, mode=mode) as watched:
        watched.step()
        root.rmdir()
        watched.step()
        assert not watched.watch.watching
        assert said()[-1] == "watched folder missing"
        root.mkdir()
        watched.write("missed.mp4")
        watched.step()
        assert list(watched.found) == ["missed.mp4"]
        watched.write("seen.mp4")
        watched.sees("seen.mp4")


def test_a_folder_exchanged_between_two_steps_is_watched(
    watched: Watched, said: Callable[[], list[str]]
) -> None:
    watched.root.rename(watched.root.with_name("old"))
    watched.root.mkdir()
    watched.write("missed.mp4")
    watched.step()
    assert "observer started anew" in said()
    assert list(watched.found) == ["missed.mp4"]
    watched.write("sub/seen.mp4")
    watched.sees("sub/seen.mp4")


def test_a_link_that_is_turned_to_another_folder_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    link = tmp_path / "link"
    link.symlink_to(root)
    with watching(link) as watched:
        watched.step()
        link.unlink()
        link.symlink_to(tmp_path / "other")
        watched.step()
        watched.write("seen.mp4")
        watched.sees("seen.mp4")


def test_a_file_in_the_folders_place_is_no_folder(root: Path, said: Callable[[], list[str]]) -> None:
    root.rmdir()
    root.touch()
    with watching(root) as watched:
        watched.step()
        assert not watched.watch.watching
        assert said() == ["watched folder missing"]


def test_a_folder_that_vanishes_while_the_observer_starts_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(self: InotifyObserver) -> None:
        monkeypatch.undo()
        root.rmdir()
        self.start()

    monkeypatch.setattr(InotifyObserver, "start", vanish)
    with watching(root) as watched:
        watched.step()
        assert not watched.watch.watching
        root.mkdir()
        watched.step()
        assert watched.watch.watching


def test_after_the_end_nothing_is_watched(watched: Watched) -> None:
    observer = watched.watch._observer
    watched.watch.stop()
    assert not watched.watch.watching
    assert observer
    assert not observer.is_alive()
    watched.watch.stop()


# ---------------------------------------------------------------------- folders that may not be read


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of a user without rights, who this process is meanwhile."""
    folder = Path(tempfile.mkdtemp())
    root = folder / "root"
    root.mkdir()
    before = os.geteuid()
    if before == 0:
        folder.chmod(0o755)
        os.chown(root, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield root
    os.seteuid(before)
    shutil.rmtree(folder)


def unreadable(watched: Watched) -> str:
    watched.step(100)
    return watched.watch.scanner.unreadable


@pytest.mark.parametrize("when", ["before the start", "later"])
def test_a_folder_that_may_be_read_only_later_is_watched_from_then_on(as_nobody: Path, when: str) -> None:
    closed = as_nobody / "cam" / "day"
    with watching(as_nobody) as watched:
        if when == "later":
            watched.step()
        closed.mkdir(parents=True)
        closed.chmod(0)
        wait_until(lambda: "cam/day" in unreadable(watched))
        observer = watched.watch._observer
        watched.step()
        assert watched.watch._observer is observer, "it was started anew for nothing"
        closed.chmod(0o755)
        watched.step()
        watched.step()
        assert watched.watch.watching
        watched.write("cam/day/seen.mp4")
        watched.sees("cam/day/seen.mp4")
        after = watched.watch._observer
        watched.step(100)
        watched.step()
        assert watched.watch._observer is after


# ---------------------------------------------------------------------- in namespaces

IN_A_NAMESPACE = """
import os, subprocess, sys
from pathlib import Path
import logs
from folder import watch as folder_watch
from tests.support.pacing import wait_until
from watchdog.observers.polling import PollingObserverVFS
from tests.support.watched_folder import Watched
folder_watch.POLLING_SECONDS = 0.02
logs.configure_logging("INFO", "text")
"""


def in_a_namespace(tmp_path: Path, program: str) -> str:
    """Run a program as root of namespaces of its own, where limits and mounts concern nobody else."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    found = subprocess.run(
        [*command, sys.executable, "-c", IN_A_NAMESPACE + textwrap.dedent(program), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    return found.stderr


def test_an_unmounted_volume_is_waited_for(tmp_path: Path) -> None:
    said = in_a_namespace(
        tmp_path,
        """
        root = Path(sys.argv[1], "volume")
        root.mkdir()
        mount = lambda: subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
        mount()
        watched = Watched(root)
        watched.step()
        assert watched.watch.watching
        subprocess.run(["umount", root], check=True)
        watched.step()
        assert not watched.watch.watching, "the empty folder below was watched in the volume's place"
        mount()
        watched.write("a.mp4")
        watched.step()
        assert watched.watch.watching
        assert list(watched.found) == ["a.mp4"]
        watched.watch.stop()
        """,
    )
    assert 'reason="its volume is not mounted"' in said


@pytest.mark.parametrize("when", ["before the start", "later"])
def test_folders_beyond_the_kernels_limit_are_polled_and_the_hint_is_named(tmp_path: Path, when: str) -> None:
    said = in_a_namespace(
        tmp_path,
        f"""
        Path("/proc/sys/user/max_inotify_watches").write_text("5")
        root = Path(sys.argv[1])
        before = {when == "before the start"}
        watched = Watched(root)
        if not before:
            watched.step()
        for number in range(10):
            (root / str(number)).mkdir()
        wait_until(lambda: watched.step(100) or isinstance(watched.watch._observer, PollingObserverVFS))
        watched.write("9/a.mp4")
        watched.sees("9/a.mp4")
        assert watched.watch.watching
        for _ in range(3):
            watched.step(100)
        watched.watch.stop()
        """,
    )
    assert said.count("fs.inotify.max_user_watches") == 1
    assert said.count("by=polling") == 1


def test_without_an_inotify_instance_the_folder_is_polled_and_the_hint_is_named(tmp_path: Path) -> None:
    said = in_a_namespace(
        tmp_path,
        """
        Path("/proc/sys/user/max_inotify_instances").write_text("0")
        watched = Watched(Path(sys.argv[1]))
        watched.step()
        watched.write("a.mp4")
        watched.sees("a.mp4")
        watched.watch.stop()
        """,
    )
    assert said.count("fs.inotify.max_user_instances") == 1
    assert said.count("by=polling") == 1
