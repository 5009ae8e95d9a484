"""What the audit remembers in Redis: when each finished recording is looked at next, and what was found.

All daemons of a namespace share one queue: a sorted set of stream ids by the time of their next look. A
stream enters it when it is completed or closed (`scripts.SET_STATE`); one that is missing is added again.
"""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from recording.bounded_json import members_of
from recording.stream import State
from redis_store.errors import translated
from redis_store.reader import LOOKUP_BATCH, CheckpointReader

if TYPE_CHECKING:
    import redis

MAX_FINDINGS = 1_000
"""Kept at once, about 300 kB: every daemon reads them. More are logged, and found again."""

MORE = "more"
"""In the place of a stream id, which always has an `@`: a finding about all that could not be kept."""

MAX_PROBLEMS = 5
"""Kept of one recording: enough to know where to look."""

MAX_PROBLEM_CHARACTERS = 300

_TIME = """
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
"""

# KEYS: audits. ARGV: how many, ms until another daemon may take them. Each is due again unless `LATER` comes.
TAKE = (
    _TIME
    + """
local ids = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
for i = 1, #ids do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ids[i]) end
return ids
"""
)

# KEYS: audits. ARGV: id, ms until its next look, '' for none. Taken ones are due later than now: one that is
# due was completed meanwhile, and stays so.
LATER = (
    _TIME
    + """
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not due or tonumber(due) <= now then return {'DUE'} end
if ARGV[2] == '' then redis.call('ZREM', KEYS[1], ARGV[1])
else redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1]) end
return {'OK'}
"""
)

# KEYS: audits. ARGV: ms over which they are spread, ids. Adds what is not there.
ENROL = (
    _TIME
    + """
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'NX', now + tonumber(ARGV[1]) * (i - 1) / #ARGV, ARGV[i])
end
return {'OK'}
"""
)

# KEYS: findings. ARGV: id, finding (JSON), most that may stand.
NOTE = """
if not redis.call('HGET', KEYS[1], ARGV[1]) and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return {'FULL'}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'OK'}
"""


class Finding(NamedTuple):
    """What is wrong with a finished recording in S3.

    `problems` are sentences, the first ones of `problem_count`. `found_at` is ISO 8601 UTC.
    `acknowledged_by` says who knows of it and accepts it; "" while nobody does.
    """

    stream_id: str
    path: str
    problems: tuple[str, ...]
    problem_count: int
    found_at: str
    acknowledged_by: str = ""

    def same_as(self, other: "Finding") -> bool:
        """Return whether both say the same of one recording; the time does not count."""
        return _kept(self.problems) == _kept(other.problems) and self.problem_count == other.problem_count


def _kept(problems: tuple[str, ...]) -> list[str]:
    return [text[:MAX_PROBLEM_CHARACTERS] for text in problems[:MAX_PROBLEMS]]


class Audits(CheckpointReader):
    """The audit's queue and findings in one namespace of one Redis. Safe to use from any thread.

    Every method raises `StoreUnavailable` when Redis is down or refuses us.

    Parameters:
        client: made by `checkpoint.connect`.
        namespace: first part of every key.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str) -> None:
        super().__init__(client, namespace=namespace)
        self._queue = self._base + "audits"
        self._noted = self._base + "findings"
        self._take = client.register_script(TAKE)
        self._later = client.register_script(LATER)
        self._enrol = client.register_script(ENROL)
        self._note = client.register_script(NOTE)

    # ------------------------------------------------------------------ the queue

    def take(self, number: int, *, hold_seconds: float) -> list[str]:
        """Return finished recordings whose look is due; no other daemon gets them meanwhile.

        Parameters:
            number: at most so many.
            hold_seconds: until they are due again, unless `later` or `drop` is called.
        """
        with translated():
            ids: Any = self._take(keys=[self._queue], args=[number, int(hold_seconds * 1000)])
        return list(ids)

    def later(self, stream_id: str, seconds: float) -> None:
        """Have a recording looked at again after a time; one that is not in the queue stays out of it."""
        with translated():
            self._later(keys=[self._queue], args=[stream_id, int(seconds * 1000)])

    def drop(self, stream_id: str) -> None:
        """Take a recording out of the queue: it is not finished, or not known, any more."""
        with translated():
            self._later(keys=[self._queue], args=[stream_id, ""])

    def enrol(self, state: State, start: int, *, spread_seconds: float) -> int:
        """Add finished recordings that are missing in the queue, a batch at a time.

        Parameters:
            state: complete or incomplete.
            start: how many of that state were gone through before.
            spread_seconds: over which the looks at those that are added are spread.

        Returns:
            How many were gone through now; 0 at the end.
        """
        zset = self._base + str(state)
        with translated():
            ids: Any = self._redis.zrange(zset, start, start + LOOKUP_BATCH - 1)
            if ids:
                self._enrol(keys=[self._queue], args=[int(spread_seconds * 1000), *ids])
        return len(ids)

    def overdue_seconds(self) -> float:
        """Return for how long the look that should have come first is due; 0 when none is."""
        with translated():
            first: Any = self._redis.zrange(self._queue, 0, 0, withscores=True)
            seconds, microseconds = self._redis.time()
        return max(seconds + microseconds / 1e6 - first[0][1] / 1000, 0.0) if first else 0.0

    # ------------------------------------------------------------------ findings

    def note(self, finding: Finding) -> bool:
        """Write down what was found; False when too many stand already, which is then a finding itself."""
        content = {
            "path": finding.path,
            "problems": _kept(finding.problems),
            "problem_count": finding.problem_count,
            "found_at": finding.found_at,
            "acknowledged_by": finding.acknowledged_by,
        }
        with translated():
            reply: Any = self._note(
                keys=[self._noted], args=[finding.stream_id, json.dumps(content), MAX_FINDINGS]
            )
        if reply[0] == "OK":
            return True
        if finding.stream_id != MORE:
            self._keep_that_there_are_more()
        return False

    def _keep_that_there_are_more(self) -> None:
        problem = f"{MAX_FINDINGS} findings stand: what is found beside them is in the log alone"
        with translated():
            self._redis.hset(
                self._noted,
                MORE,
                json.dumps(
                    {
                        "path": "",
                        "problems": [problem],
                        "problem_count": 1,
                        "found_at": "",
                        "acknowledged_by": "",
                    }
                ),
            )

    def clear(self, stream_id: str) -> None:
        """Take a finding away: the recording is whole, or not known any more."""
        with translated():
            self._redis.hdel(self._noted, stream_id, MORE)

    def finding(self, stream_id: str) -> Finding | None:
        """Return what stands about one recording; None when nothing does."""
        with translated():
            text: Any = self._redis.hget(self._noted, stream_id)
        return _finding_of(stream_id, text) if text else None

    def findings(self) -> list[Finding]:
        """Return all that stands, in order of stream id."""
        with translated():
            rows: Any = self._redis.hgetall(self._noted)
        return [_finding_of(stream_id, rows[stream_id]) for stream_id in sorted(rows)]


def _finding_of(stream_id: str, text: str) -> Finding:
    """Read a finding; of one that is damaged it remains that there is one."""
    try:
        fields = members_of(text)
        problems = tuple(str(each)[:MAX_PROBLEM_CHARACTERS] for each in fields["problems"][:MAX_PROBLEMS])
        by, path, found_at = (str(fields[name]) for name in ("acknowledged_by", "path", "found_at"))
        return Finding(stream_id, path, problems, int(fields["problem_count"]), found_at, by)
    except (KeyError, TypeError, ValueError, OverflowError):
        return Finding(stream_id, "", ("the record of this finding is damaged",), 1, "")
