"""Whether Redis still has what it was given: lost records are noticed within seconds, the index is rebuilt.

The *index* is what leads to the records: paths, generations, inodes and the four sets of stream ids.
A Redis that evicts drops whole keys, so each of these can be away while the records are there.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import logs
from errors import StoreUnavailable
from recording.stream import NO_ERROR, UNFINISHED, RecordedError, State
from redis_store.errors import translated
from redis_store.fields import DamagedRecord, decode_path
from redis_store.reader import COUNTED, LOOKUP_BATCH, CheckpointReader

if TYPE_CHECKING:
    import redis

log = logs.get_logger(__name__)

# KEYS: pulse, paths, generations, requests, unplayable, then the sets of stream ids. Atomic, or a stream that
# changes its state meanwhile would be counted twice, or not at all.
LOOK = """
local looks = redis.pcall('HINCRBY', KEYS[1], 'looks', 1)
if type(looks) == 'table' then -- it is no number any more: begin anew, which is told as a loss
  looks = 1
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'looks', looks)
end
local time = redis.call('TIME')
local unplayable = redis.call('ZCOUNT', KEYS[5], (time[1] - 86400) * 1000, '+inf')
local sizes = {}
for i = 6, #KEYS do sizes[#sizes + 1] = redis.call('ZCARD', KEYS[i]) end
local paths, generations = redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3])
local requests, pulse = redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[1])
return {looks, paths, generations, sizes, requests, pulse, unplayable}
"""

# KEYS: paths, generations, inodes, active, complete, incomplete, failed, pulse. ARGV: prefix of stream keys,
# then pairs of id and path (base64, '' if unknown). An id without a record leaves the index. Of two streams
# with one path the unfinished one is the newest, else the one that was changed last.
REBUILD = """
local sets = {active = KEYS[4], finalizing = KEYS[4], complete = KEYS[5],
  incomplete = KEYS[6], failed = KEYS[7]}
local function rank(id)
  local at = redis.call('HMGET', ARGV[1] .. id, 'state', 'updated_at')
  local unfinished = at[1] == 'active' or at[1] == 'finalizing'
  return (unfinished and 1e15 or 0) + (tonumber(at[2]) or 0)
end
for i = 2, #ARGV, 2 do
  local id, path = ARGV[i], ARGV[i + 1]
  local at = redis.call('HMGET', ARGV[1] .. id,
    'state', 'path_base64', 'generation', 'dev', 'ino', 'updated_at', 'error_kind')
  local set = sets[at[1] or '']
  for j = 4, 7 do
    if KEYS[j] == set then redis.call('ZADD', set, tonumber(at[6]) or 0, id)
    else redis.call('ZREM', KEYS[j], id) end
  end
  if not set then
    if redis.call('HGET', KEYS[1], path) == id then redis.call('HDEL', KEYS[1], path) end
  else
    local newest = redis.call('HGET', KEYS[1], at[2])
    if not newest or rank(newest) < rank(id) then redis.call('HSET', KEYS[1], at[2], id) end
    local keys = string.match(id, '^(.*)@')
    local known = tonumber(redis.call('HGET', KEYS[2], keys) or '0')
    if known < tonumber(at[3]) then redis.call('HSET', KEYS[2], keys, at[3]) end
    local inode = at[4] .. ':' .. at[5]
    if not redis.call('HGET', KEYS[3], inode) then redis.call('HSET', KEYS[3], inode, id) end
    local left = at[1] == 'incomplete' and at[7] == 'away'
    if left then redis.call('HSET', KEYS[8], id, at[6]) end
  end
end
return {'OK'}
"""


# KEYS: stream, pulse. ARGV: id, kind of error, error. Of a closed stream that was left behind on another
# volume: it is not any more. Not fenced: nobody writes into it but who reopens it, and that ends it as well.
END_LEFT_BEHIND = """
redis.call('HDEL', KEYS[2], ARGV[1])
local at = redis.call('HMGET', KEYS[1], 'state', 'error_kind')
if at[1] == 'incomplete' and at[2] == 'away' then
  redis.call('HSET', KEYS[1], 'error_kind', ARGV[2], 'error', ARGV[3])
end
return {'OK'}
"""


class Look(NamedTuple):
    """What one look at Redis tells.

    `counts` are of the streams by state (finalizing ones count as active), `requested` the ids of those for
    which an operator's request stands, `left_behind` those of closed ones whose volume was exchanged.
    `unplayable` counts those that ended within the last day and that no player can open.
    """

    counts: dict[State, int]
    requested: list[str]
    left_behind: list[str]
    unplayable: int


class _Sizes(NamedTuple):
    """Of the index. `looks` counts the looks of all daemons: it goes back only with everything else."""

    looks: int
    paths: int
    generations: int
    streams: int

    def problem(self) -> str:
        """Return what cannot be with every key there; "" when nothing is known to be missing."""
        if self.streams < self.paths:
            return "sets of streams"
        if self.streams and not self.paths:
            return "the paths"
        if self.streams and self.looks == 1:  # whoever begins the first stream has looked before
            return "the pulse"
        return "the generations" if self.streams and not self.generations else ""


class RecordIndex(CheckpointReader):
    """Looks after the index of one namespace of one Redis. `look` is for one thread, the rest for any.

    Every method raises `StoreUnavailable` when Redis is down or refuses us.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str) -> None:
        super().__init__(client, namespace=namespace)
        self._look = client.register_script(LOOK)
        self._rebuild = client.register_script(REBUILD)
        self._end_left_behind = client.register_script(END_LEFT_BEHIND)
        self._pulse = self._base + "pulse"
        self._seen: _Sizes | None = None  # by the last look, if nothing was lost since
        self._incomplete = False  # whether a look found that a part of the index is away

    def look(self) -> Look:
        """Count the streams and find the requests that stand; in one round trip.

        Raises:
            StoreUnavailable: `records_lost`, once for each loss: Redis was emptied, evicted keys, or is
                an older copy. The whole folder must be scanned again before anything counts as safe.
        """
        sizes, look = self._ask()
        before, self._seen = self._seen, None
        if before and sizes.looks <= before.looks:
            self._incomplete = True  # of the pulse
            raise _lost("it was emptied or set back to an older copy")
        if problem := sizes.problem() or (before and sizes.streams < before.streams and "sets of streams"):
            self._incomplete = True
            raise _lost(f"{problem} are gone; does it evict keys (maxmemory-policy)?")
        self._seen = sizes
        return look

    def end_left_behind(self, stream_id: str, error: RecordedError = NO_ERROR) -> None:
        """Record that nobody waits any more for the volume of a closed stream.

        Parameters:
            stream_id: of it.
            error: what its record says from now on.
        """
        with translated():
            self._end_left_behind(keys=[self._stream_key(stream_id), self._pulse], args=[stream_id, *error])

    def mend_index(self) -> None:
        """Rebuild the index from the records if a part of it is away. Repeating it changes nothing."""
        problem = self._ask(at_start=True)[0].problem()
        if not (problem or self._incomplete):
            return
        streams = list(self._indexed().items())
        for start in range(0, len(streams), LOOKUP_BATCH):
            with translated():
                self._put_right(dict(streams[start : start + LOOKUP_BATCH]))
        self._incomplete = False
        log.warning(
            "index of the records rebuilt", streams=len(streams), missing=problem or "sets of streams"
        )

    def unfinished_paths(self) -> list[str]:
        """Return the paths of all streams that are active, finalizing or failed.

        A stream whose record says something else leaves its set: nobody would ever have a turn for it.
        """
        with translated():
            sets: dict[str, Any] = {
                zset: self._redis.zrange(zset, 0, -1) for zset in (self._active, self._failed)
            }
        paths: list[str] = []
        for zset, ids in sets.items():
            for start in range(0, len(ids), LOOKUP_BATCH):
                paths += self._paths_in(zset, ids[start : start + LOOKUP_BATCH])
        return paths

    def _paths_in(self, zset: str, ids: list[str]) -> list[str]:
        states = UNFINISHED if zset == self._active else {State.FAILED}
        paths: list[str] = []
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for stream_id in ids:
                pipe.hmget(self._stream_key(stream_id), "path_base64", "state")
            rows: Any = pipe.execute()
            wrong = [each for each, (_, state) in zip(ids, rows, strict=True) if state not in states]
            if wrong:
                self._put_right(dict.fromkeys(wrong, ""))
        for path, _ in rows:
            if path:
                with suppress(DamagedRecord):  # the scan meets it at the path that it claims
                    paths.append(decode_path(path))
        return paths

    def _put_right(self, streams: dict[str, str]) -> None:
        pairs = [part for pair in streams.items() for part in pair]
        self._rebuild(
            keys=[self._paths, self._generations, self._inodes, *self._zsets, self._pulse],
            args=[self._stream_key(""), *pairs],
        )

    def _ask(self, *, at_start: bool = False) -> tuple[_Sizes, Look]:
        with translated(at_start=at_start):
            index = [self._pulse, self._paths, self._generations, self._requests, self._base + "unplayable"]
            reply: Any = self._look(keys=[*index, *self._zsets])
        looks, paths, generations, sizes, requests, pulse, unplayable = reply
        counts = dict(zip(COUNTED, sizes, strict=True))
        left_behind = [name for name in pulse[::2] if name != "looks"]
        look = Look(counts, requests[::2], left_behind, unplayable)
        return _Sizes(looks, paths, generations, sum(sizes)), look

    def _indexed(self) -> dict[str, str]:
        """Find the streams that any part of the index names, each with its path (base64) if that is known."""
        with translated():
            paths: Any = self._redis.hgetall(self._paths)
            found = {stream_id: path for path, stream_id in paths.items()}
            for zset in self._zsets:
                ids: Any = self._redis.zrange(zset, 0, -1)
                for stream_id in ids:
                    found.setdefault(stream_id, "")
        return found


def _lost(reason: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"records were lost: {reason}",
        service="redis",
        kind="records_lost",
    )
