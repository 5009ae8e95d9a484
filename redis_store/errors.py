"""What each failure of Redis means; the one place that knows redis-py's exceptions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from errors import ErrorKind, StoreUnavailable, files_hint

_REFUSALS = (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
)
_PASSING_CODES = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "NOSCRIPT", "TRYAGAIN"}
)
"""NOSCRIPT: redis-py loads a script again, but after a failover perhaps on a connection to the old node."""


class RetryUnlessRefused(Retry):
    """redis-py's own retries, but not of a wrong password: that is a `ConnectionError` to redis-py."""

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002 - redis-py's own signature
    ) -> Any:
        """Call until it succeeds, is refused, or fails for the last time."""

        def may_succeed(error: Exception) -> bool:
            return not is_refusal(error) and (is_retryable is None or is_retryable(error))

        return super().call_with_retry(do, fail, may_succeed, with_failure_count)


def is_refusal(error: Exception) -> bool:
    """Return whether Redis does not let us in, which no other try changes."""
    return isinstance(error, _REFUSALS)


@contextmanager
def translated(*, at_start: bool = False) -> Iterator[None]:
    """Turn redis-py's exceptions into `StoreUnavailable`; a reply that only a bug explains passes.

    Parameters:
        at_start: nothing has worked yet, so a reply that we don't know says that this is no Redis
            for us: too old, without that database, another program.
    """
    try:
        yield
    except _REFUSALS as error:
        raise _refused(error) from error
    except BusyLoadingError as error:
        raise _unavailable("it is still loading its data", "loading") from error
    except OutOfMemoryError as error:
        raise _unavailable("it is out of memory", "memory", 5) from error
    except ReadOnlyError as error:
        raise _unavailable("it is a read-only replica", "read_only") from error
    except ResponseError as error:
        raise _of_response(error, at_start=at_start) from error
    except (RedisError, OSError) as error:
        said = str(error) or type(error).__name__
        raise _unavailable(said, "unreachable", hint=files_hint(error)) from error


def _of_response(error: ResponseError, *, at_start: bool) -> Exception:
    # redis-py takes the code out of the text of the replies that it has a class for, and begins the
    # text of those to a pipeline itself.
    said = str(error).rpartition(" of pipeline caused error: ")[2]
    code = getattr(error, "status_code", None) or said.partition(" ")[0]
    if code == "MISCONF":
        return _unavailable("it cannot save to its disk", "full", 5)
    if code in _PASSING_CODES:
        return _unavailable(f"{code} {said.removeprefix(code).lstrip()}", "unreachable")
    if said.startswith("ACL failure in script"):
        return _refused(error)
    if isinstance(error, MovedError):
        return _useless("it is one node of a cluster", "write redis+cluster:// and its nodes in REDIS_URL")
    if isinstance(error, AskError) or "non local key in a cluster" in said:
        return _unavailable("our slot is on its way to another node of the cluster", "unreachable")
    useless = _useless(f"it answers: {error}") if at_start else error
    return _of_damage(said, code) or useless


def _of_damage(said: str, code: str) -> StoreUnavailable | None:
    if code != "WRONGTYPE" and "user_script" not in said:
        return None
    return _unavailable(f"it holds records that no version of ours wrote: {said:.200}", "schema", 5)


def _useless(reason: str, hint: str | None = None) -> StoreUnavailable:
    return StoreUnavailable(reason, service="redis", kind="refused", hint=hint, refused=True)


def _refused(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"it refuses us ({error})", service="redis", kind="credentials", refused=True)


def _unavailable(
    reason: str, kind: ErrorKind, pause_seconds: float = 0.0, *, hint: str | None = None
) -> StoreUnavailable:
    return StoreUnavailable(reason, service="redis", kind=kind, hint=hint, pause_seconds=pause_seconds)
