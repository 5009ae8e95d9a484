"""Which recordings a command is about: names, folders, patterns, times; and how names are shown."""

import functools
import os
import re
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import click

from archive.listing import Archive, Summary, summary_of
from cli.completion import recordings
from recording.layout import MAX_REVISION, key_path

EPILOG = """\
NAME is the path of a recording below the watched folder, or as `list` shows it: the newest one at that
path, unless `@2` at the end names the second. A folder with a slash at its end (nvr/cam05/) or a pattern
('nvr/*/2026-11-20*') means all recordings there. It needs S3 alone, not Redis.

DATE is 2026-11-20, 2026-11-20T14:00, 14:00, yesterday, 'yesterday 14:00', or so long ago: 30m, 12h, 7d, 2w.
It is about the time of the recording, by the local clock.

\b
exit codes:
  0    all is well
  1    something is wrong: a recording that is damaged, missing, or could not be written
  2    wrong settings or arguments
  3    S3 refused us or did not answer
  130  interrupted; restore goes on from there when it is started again
"""

MAX_GENERATION = 10**9 - 1

_AGO = re.compile(r"([0-9]{1,6})(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = re.compile(r"(today|yesterday|[0-9]{4}-[0-9]{2}-[0-9]{2})")
_DAY_AND_TIME = re.compile(rf"(?:{_DAY.pattern}[ T])?([0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}})?)")
_PATTERN = re.compile(r"[*?\[]")


class Selection(NamedTuple):
    """Which recordings are meant. Without names all of them are, as far as the rest allows."""

    names: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    playable: bool

    @property
    def is_filtered(self) -> bool:
        """Whether more than names decides."""
        return bool(self.since or self.until or self.playable)

    @property
    def only_name(self) -> str | None:
        """The one recording that was named, if nothing else was asked for."""
        one = len(self.names) == 1 and not self.is_filtered and not means_several(self.names[0])
        return self.names[0] if one else None

    def summaries(self, archive: Archive, *, prefixes: bool = False) -> Generator[Summary, None, None]:
        """Find what is meant, each once, in the order of the names.

        Parameters:
            archive: where to look.
            prefixes: a name means everything that begins so.

        Raises:
            UnknownRecording: a single recording was named, and there is none.
        """
        seen = set()
        for name in self.names or ("",):
            with closing(self._named(archive, name, prefixes=prefixes)) as found:
                for each in found:
                    if self._allows(each) and each.id not in seen:
                        seen.add(each.id)
                        yield each

    def _named(self, archive: Archive, name: str, *, prefixes: bool) -> Generator[Summary, None, None]:
        if name and not prefixes and not means_several(name):
            yield summary_of(archive.find(name))
            return
        matches = _pattern(name, archive.watch_dir)
        with closing(archive.summaries(_PATTERN.split(name)[0])) as found:
            yield from filter(matches, found)

    def _allows(self, each: Summary) -> bool:
        began, ended = each.facts.recorded
        early = self.since and ended and ended < self.since
        late = self.until and began and began > self.until
        return not early and not late and not (self.playable and each.facts.playback.unplayable)


def means_several(name: str) -> bool:
    """Return whether a typed name is a folder or a pattern."""
    return name.endswith("/") or bool(_PATTERN.search(name))


def _pattern(name: str, watch_dir: str) -> Callable[[Summary], bool]:
    if not _PATTERN.search(name):
        return lambda _: True
    root = os.path.join(os.path.abspath(watch_dir), "")
    absolute = os.path.abspath(name)
    pattern = absolute.removeprefix(root) if absolute.startswith(root) else os.path.normpath(name)
    return lambda each: fnmatchcase(_path(each), pattern) or fnmatchcase(each.id.key_path, pattern)


def _path(each: Summary) -> str:
    """Return a recording's path as it is in the folder; a renamed one keeps the name that finds it."""
    path = each.facts.path
    return path if path and key_path(path) == each.id.key_path else each.id.key_path


def name_of(each: Summary) -> str:
    """Return the name to show: that of the file, which can be typed, with the generation behind it."""
    return f"{_path(each)}@{each.name.rpartition('@')[2]}"


# ---------------------------------------------------------------------- options


class Moment(click.ParamType[datetime]):
    """A time as people type it; a day that ends a range is meant to its end.

    Parameters:
        end: whether it ends a range.
    """

    name = "date"

    def __init__(self, *, end: bool) -> None:
        self._end = end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read what was typed."""
        try:
            return moment(value, datetime.now().astimezone(), end=self._end)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date: 2026-11-20, 2026-11-20T14:00, yesterday, 7d", param, ctx)


def moment(text: str, now: datetime, *, end: bool) -> datetime:
    """Read a time as people type it, by the local clock.

    Parameters:
        text: what was typed.
        now: the present time.
        end: a day means its last moment.

    Raises:
        ValueError: it is none.
    """
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    if day := _DAY.fullmatch(text):
        midnight = datetime.fromisoformat(_date(day[1], now))
        return (midnight + timedelta(days=1, microseconds=-1) if end else midnight).astimezone()
    if at := _DAY_AND_TIME.fullmatch(text):
        return datetime.fromisoformat(f"{_date(at[1] or 'today', now)}T{at[2].zfill(5)}").astimezone()
    return datetime.fromisoformat(text).astimezone()


def _date(day: str, now: datetime) -> str:
    days_ago = {"today": 0, "yesterday": 1}.get(day)
    return day if days_ago is None else (now.date() - timedelta(days=days_ago)).isoformat()


generation_option = click.option(
    "--generation", type=click.IntRange(1, MAX_GENERATION), metavar="N", help="The same as NAME@N."
)

revision_option = click.option(
    "--revision",
    type=click.IntRange(1, MAX_REVISION),
    metavar="N",
    help="As it was before it was written again; `verify` says which are kept.",
)


def selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that say which recordings are meant; the command gets them as a `Selection`."""

    @click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=recordings)
    @click.option(
        "--since", type=Moment(end=False), metavar="DATE", help="Only what was recorded at or after it."
    )
    @click.option(
        "--until", type=Moment(end=True), metavar="DATE", help="Only what was begun at or before it."
    )
    @click.option("--playable", is_flag=True, help="Only what a player can open.")
    @functools.wraps(function)
    def with_selection(
        *args: Any,
        names: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        playable: bool,
        **more: Any,
    ) -> Any:
        return function(*args, selected=Selection(names, since, until, playable), **more)

    return with_selection
