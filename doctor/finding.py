"""What `doctor` says of one thing that it looked at."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem", "unchecked"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Parameters:
        check: a word or two for it, always the same.
        level: `problem`: recording would not be safe. `warning`: it would, but less well than it
            could. `unchecked`: there was no way to tell.
        said: what was found, for people; one line.
        hint: what to do about it, one line; "" when nothing needs to be done.
    """

    check: str
    level: Level
    said: str
    hint: str = ""
