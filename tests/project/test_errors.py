"""Every error says what happened, of which kind, and what to do; each apart, and together as a text."""

from typing import get_args

import pytest

from errors import (
    ErrorKind,
    PermanentError,
    Service,
    StoreUnavailable,
    TransientError,
    UploaderError,
    hint_of,
)

NEED_NO_HINT = {
    "busy",
    "cancelled",
    "conflict",
    "cut_short",
    "lost",
    "manifest",
    "missing",
    "not_a_file",
    "race",
    "size",
    "slow",
}
"""They pass by themselves, are what somebody wanted, or say all that can be said."""


@pytest.mark.parametrize("kind", get_args(ErrorKind))
def test_every_kind_of_error_says_what_to_do_unless_nothing_is_to_be_done(kind: ErrorKind) -> None:
    assert bool(PermanentError("it failed", kind=kind).hint) == (kind not in NEED_NO_HINT)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UploaderError("it failed"), "it failed"),
        (TransientError("it failed", kind="race"), "it failed"),
        (PermanentError("it failed", kind="too_large"), f"it failed; {hint_of('too_large')}"),
        (PermanentError("it failed", kind="too_large", hint="wait"), "it failed; wait"),
        (PermanentError("it failed", kind="too_large", hint=""), "it failed"),
        (
            StoreUnavailable("it is gone", service="redis", kind="full", hint="wait"),
            "Redis: it is gone; wait",
        ),
        (StoreUnavailable("it is gone", service="s3", kind="slow"), "S3: it is gone"),
    ],
    ids=str,
)
def test_as_a_text_it_says_what_happened_and_what_to_do(error: UploaderError, text: str) -> None:
    assert str(error) == text
    assert text.endswith(error.hint)
    assert error.message in ("it failed", "it is gone")


@pytest.mark.parametrize("kind", ["credentials", "full", "unreachable"])
def test_what_is_to_be_done_about_redis_is_not_what_is_to_be_done_about_s3(kind: ErrorKind) -> None:
    services: tuple[Service, ...] = get_args(Service)
    hints = [StoreUnavailable("", service=service, kind=kind).hint for service in services]
    assert len({*hints}) == len(services)
    assert all(hints)


def test_no_hint_has_a_gap() -> None:
    words = [
        *get_args(ErrorKind),
        "may_not_create",
        "missing_bucket",
        "other_region",
        "EMFILE",
        "AccessDenied",
    ]
    assert not any("{" in hint_of(word) for word in words)
    assert hint_of("NoSuchWord", "bucket", bucket="videos").startswith("create the bucket videos,")
