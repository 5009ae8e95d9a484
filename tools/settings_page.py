"""`docs/settings.md`, made from the groups of settings in `settings/`."""

from itertools import groupby
from operator import attrgetter

from config import SETTINGS, SettingDoc

_HEAD = """\
# Settings

<!-- Made by `make docs` from the groups in settings/: change the descriptions there. -->

They come from the environment, or from a file `.env` in the current folder; the environment wins, and an
empty value counts as unset. [.env.example](../.env.example) is such a file, to copy. All settings are
checked together at the start, and everything that is wrong is printed at once. To change one, change it and
restart the daemon: [operations.md](operations.md#6-updating) says what that means for recordings that are
under way.

**Secrets from files.** Each setting that ends with `_FILE` names a file with the value of the setting
before it, as Docker and Kubernetes mount secrets. Set one of the two. The S3 keys are read again from their
files after a refusal, so they may be renewed while the daemon runs.

`AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL` count for `S3_ENDPOINT_URL`, and `AWS_REGION` and
`AWS_DEFAULT_REGION` for `S3_REGION`, where those are unset. `--embedded` brings its own S3 and Redis, and
ignores the keys.
"""


def page() -> str:
    """Return the page: a heading for each group of settings, and a table below it."""
    parts = [_HEAD]
    for title, settings in groupby(SETTINGS, attrgetter("group")):
        rows = ["| Setting | Default | Meaning |", "|---|---|---|", *map(_row, settings)]
        parts.append(f"## {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(setting: SettingDoc) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    meaning = " ".join(setting.meaning.split()).replace("|", "\\|")
    return f"| `{setting.name}` | {default} | {meaning} |"
