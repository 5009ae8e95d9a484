"""What each failure of Redis means; the one place that knows redis-py's exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from errors import StoreUnavailable


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's exceptions into `StoreUnavailable`; a reply that only a bug explains passes."""
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise _refused(error) from error
    except BusyLoadingError as error:
        raise _unavailable("it is still loading its data", "loading") from error
    except OutOfMemoryError as error:
        raise _unavailable("it is out of memory: raise maxmemory or free some", "memory", 5) from error
    except ReadOnlyError as error:
        raise _unavailable(
            "it is a read-only replica: REDIS_URL must name the primary", "read_only"
        ) from error
    except ResponseError as error:
        raise _of_response(error) from error
    except (RedisError, OSError) as error:
        raise _unavailable(str(error) or type(error).__name__, "unreachable") from error


def _of_response(error: ResponseError) -> Exception:
    code = str(error).partition(" ")[0]
    if code == "MISCONF":
        return _unavailable("it cannot save to its disk: make room there", "full", 5)
    if code in ("NOAUTH", "WRONGPASS", "NOPERM"):
        return _refused(error)
    if code in ("CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "LOADING", "NOREPLICAS"):
        return _unavailable(str(error), "unreachable")
    return error


def _refused(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"Redis refuses us ({error}): check the user and password in REDIS_URL and the user's rights",
        service="redis",
        kind="credentials",
        refused=True,
    )


def _unavailable(reason: str, kind: str, pause_seconds: float = 0.0) -> StoreUnavailable:
    return StoreUnavailable(f"Redis: {reason}", service="redis", kind=kind, pause_seconds=pause_seconds)
