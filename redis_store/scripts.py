"""The Lua that Redis runs: every write to a stream's record, each one atomic and fenced.

Every script reads the clock of Redis (`TIME`), the one clock for leases. A write begins with
`fence`: it goes through only for the owner and epoch that hold the lease. All keys share one hash
tag, so keys that a script derives from an id lie in the same cluster slot as the declared ones.
Replies are lists whose first element says what happened.

An unfinished stream is the newest of its path, or nobody would go on with it: only that one is
reopened, and none that is unfinished loses its path to another.

An unfinished stream has the record of every chunk below its next index. If some were evicted, or it
was reopened without them, `mend` lets it begin at 0: S3 still has the chunks.
"""

from redis_store.lease_scripts import CLOCK, FENCE

# KEYS: paths. ARGV: prefix of stream keys, field count, fields, paths (base64).
LOOKUP = """
local fields, count = {}, tonumber(ARGV[2])
for i = 1, count do fields[i] = ARGV[2 + i] end
local found = {}
for i = 3 + count, #ARGV do
  local id = redis.call('HGET', KEYS[1], ARGV[i])
  local record = id and redis.pcall('HMGET', ARGV[1] .. id, unpack(fields))
  local there = record and record.err
  for j = 1, record and #record or 0 do there = there or record[j] end
  if not there then record = {}
  elseif record.err then record = {id}
  else table.insert(record, 1, id) end
  found[#found + 1] = record
end
return found
"""

# KEYS: paths, generations, inodes, active, complete, incomplete. ARGV: prefix of stream keys, prefix of
# chunk keys, path, id expected at that path ('' for none), key path, generation, revision, chunk size,
# owner, ttl ms, signature (5), born ns, generation's owner, adopted (0 or 1), base, state, kind of error,
# error, chunks, bytes, exact (0 or 1: that generation or none), playback (JSON), fields. A stream there that
# this owner began and did nothing with yet is the answer to a first try whose reply was lost. Grants a
# lease, as ACQUIRE does.
CREATE = (
    FENCE
    + """
local now = now_us()
local at_path = redis.call('HGET', KEYS[1], ARGV[3]) or ''
if at_path ~= ARGV[4] and redis.call('EXISTS', ARGV[1] .. at_path) == 1 then
  local first = redis.call('HMGET', ARGV[1] .. at_path, 'epoch', 'owner', 'state', 'next_index', 'dev', 'ino')
  local mine = {ARGV[9], ARGV[20], ARGV[23], ARGV[14], ARGV[15]}
  for i = 1, #mine do if first[i + 1] ~= mine[i] then return {'CONFLICT'} end end
  return grant(ARGV[1] .. at_path, at_path, first[1], first[1], 27)
end
if unfinished(redis.call('HGET', ARGV[1] .. at_path, 'state')) then return {'CONFLICT'} end
local generation, revision = tonumber(ARGV[6]), ARGV[7]
local newest = tonumber(redis.call('HGET', KEYS[2], ARGV[5]) or '0')
if not newest or newest < 0 or newest >= 999999999 or newest ~= math.floor(newest) then newest = 0 end
if generation <= newest then
  if ARGV[25] == '0' then generation, revision = newest + 1, '0'
  elseif redis.call('EXISTS', ARGV[1] .. ARGV[5] .. '@' .. int(generation)) == 1 then return {'KNOWN'} end
end
local id = ARGV[5] .. '@' .. int(generation)
local stream = ARGV[1] .. id
local now_ms = int(math.floor(now / 1000))
redis.call('HSET', KEYS[1], ARGV[3], id) -- first: after a DEL a Redis without memory takes all the rest
redis.call('DEL', stream, ARGV[2] .. id)
redis.call('HSET', stream, 'path_base64', ARGV[3], 'generation', int(generation), 'revision', revision,
  'state', ARGV[20], 'chunk_size', ARGV[8], 'next_index', ARGV[23], 'offset', ARGV[24], 'repaired', '0',
  'started_at', now_ms, 'updated_at', now_ms, 'owner', ARGV[9], 'epoch', int(now),
  'born_ns', ARGV[16], 'generation_owner', ARGV[17], 'adopted', ARGV[18], 'base', ARGV[19],
  'lease_until', int(now + tonumber(ARGV[10]) * 1000), 'error_kind', ARGV[21], 'error', ARGV[22],
  'playback', ARGV[26])
sign(stream, 11)
redis.call('HSET', KEYS[2], ARGV[5], int(math.max(generation, newest)))
redis.call('HSET', KEYS[3], ARGV[14] .. ':' .. ARGV[15], id)
local set = {active = KEYS[4], complete = KEYS[5], incomplete = KEYS[6]}
redis.call('ZADD', set[ARGV[20]], now_ms, id)
return grant(stream, id, int(now), int(now), 27)
"""
)

# KEYS of every write below: stream, chunks, active, complete, incomplete, failed, paths.

# ARGV: owner, epoch, id, index, record (JSON), size, sha256, signature (5).
# Nothing follows a tail, and only a stream that is being finalized has one.
CHECKPOINT = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local at = redis.call('HMGET', KEYS[1], 'state', 'next_index', 'offset', 'chunk_size')
if not unfinished(at[1]) then return {'CONFLICT'} end
local index, size, chunk_size = tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(at[4])
local known = redis.call('HGET', KEYS[2], ARGV[4])
if known then
  if sha256(known) == ARGV[7] then return {'DUP'} end
  return {'CONFLICT'}
end
if index ~= tonumber(at[2]) or tonumber(at[3]) ~= index * chunk_size then return {'GAP'} end
if size > chunk_size or (size < chunk_size and at[1] == 'active') then return {'CONFLICT'} end
local now_ms = int(math.floor(now_us() / 1000))
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[1], 'next_index', int(index + 1), 'offset', int(tonumber(at[3]) + size),
  'updated_at', now_ms, 'error_kind', '', 'error', '')
sign(KEYS[1], 8)
redis.call('ZADD', KEYS[3], now_ms, ARGV[3])
return {'OK'}
"""
)

# ARGV: owner, epoch, index, record (JSON), size, sha256.
REPLACE = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local at = redis.call('HMGET', KEYS[1], 'state', 'next_index', 'offset', 'chunk_size')
if at[1] ~= 'finalizing' then return {'CONFLICT'} end
local known = redis.call('HGET', KEYS[2], ARGV[3])
if not known then return {'GAP'} end
local size, last = tonumber(ARGV[5]), tonumber(ARGV[3]) == tonumber(at[2]) - 1
local old_size = tonumber(at[4])
if last then old_size = tonumber(at[3]) - tonumber(ARGV[3]) * tonumber(at[4]) end
if sha256(known) == ARGV[6] then
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  return {'DUP'}
end
if size > tonumber(at[4]) or (size ~= old_size and not last) then return {'CONFLICT'} end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('HSET', KEYS[1], 'offset', int(tonumber(at[3]) - old_size + size),
  'updated_at', int(math.floor(now_us() / 1000)))
redis.call('HINCRBY', KEYS[1], 'repaired', 1)
return {'OK'}
"""
)

# ARGV: owner, epoch, id, from, to, revision, kind of error, error, signature (5), playback (JSON), whether
# no player can open it (0 or 1: of those that ended within the last day the ids are kept, see index.py).
# Going back to active drops the tail: its bytes are part of a chunk that is still growing. It is the only
# time that index and offset go back. A move that this very lease has made already is one whose reply was
# lost.
SET_STATE = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local at = redis.call('HMGET', KEYS[1], 'state', 'next_index', 'offset', 'chunk_size', 'moved_in_epoch')
local to = ARGV[5]
if at[1] == to and at[5] == ARGV[2] then return {'DUP'} end
if at[1] ~= ARGV[4] then return {'CONFLICT'} end
if not unfinished(at[1]) and not newest(KEYS[1], KEYS[7]) then return {'CONFLICT'} end
local now_ms = int(math.floor(now_us() / 1000))
redis.call('HSET', KEYS[1], 'state', to, 'moved_in_epoch', ARGV[2], 'revision', ARGV[6],
  'error_kind', ARGV[7], 'error', ARGV[8], 'updated_at', now_ms, 'playback', ARGV[14])
sign(KEYS[1], 9)
if to == 'active' then
  local next_index, chunk_size = tonumber(at[2]), tonumber(at[4])
  if tonumber(at[3]) % chunk_size ~= 0 then
    local tail = next_index - 1
    redis.call('HDEL', KEYS[2], int(tail))
    redis.call('HSET', KEYS[1], 'next_index', int(tail), 'offset', int(tail * chunk_size))
  end
  mend(KEYS[1], KEYS[2])
end
if to == 'complete' or to == 'incomplete' then
  redis.call('DEL', KEYS[2])
  redis.call('ZADD', string.sub(KEYS[1], 1, -#ARGV[3] - 8) .. 'audits', now_ms, ARGV[3]) -- see audits.py
end
local pulse = string.sub(KEYS[1], 1, -#ARGV[3] - 8) .. 'pulse' -- see index.py
if to == 'incomplete' and ARGV[7] == 'away' then redis.call('HSET', pulse, ARGV[3], now_ms)
else redis.call('HDEL', pulse, ARGV[3]) end
if to == 'active' and (at[1] == 'complete' or at[1] == 'incomplete') then
  redis.call('HDEL', KEYS[1], 'volume') -- its source is at its path again, wherever it was before
end
local unplayable = string.sub(KEYS[1], 1, -#ARGV[3] - 8) .. 'unplayable'
if ARGV[15] == '1' then
  redis.call('ZADD', unplayable, now_ms, ARGV[3])
  redis.call('ZREMRANGEBYSCORE', unplayable, '-inf', int(now_ms - 86400000))
else redis.call('ZREM', unplayable, ARGV[3]) end
local home = {active = KEYS[3], finalizing = KEYS[3], complete = KEYS[4],
  incomplete = KEYS[5], failed = KEYS[6]}
for i = 3, 6 do
  if KEYS[i] == home[to] then redis.call('ZADD', KEYS[i], now_ms, ARGV[3])
  else redis.call('ZREM', KEYS[i], ARGV[3]) end
end
return {'OK'}
"""
)

# ARGV: owner, epoch, index of the first, index after the last, then pairs of
# index and record. Puts records of full chunks back, in order and batch by batch; each batch leaves a
# stream that can go on from there. Only what is finished begins anew at 0.
RESTORE = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local at = redis.call('HMGET', KEYS[1], 'state', 'next_index', 'chunk_size')
local first, last, known = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(at[2])
if not unfinished(at[1]) and not newest(KEYS[1], KEYS[7]) then return {'CONFLICT'} end
if first == 0 and not unfinished(at[1]) then redis.call('DEL', KEYS[2])
elseif first < last and last == known then return {'DUP'}
elseif first ~= known then return {'GAP'} end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'next_index', ARGV[4], 'offset', int(last * tonumber(at[3])))
return {'OK'}
"""
)

# ARGV: owner, epoch, id, new path, id expected at the new path ('' for none).
MOVE = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local old = redis.call('HGET', KEYS[1], 'path_base64')
if old == ARGV[4] then return {'DUP'} end
if (redis.call('HGET', KEYS[7], ARGV[4]) or '') ~= ARGV[5] then return {'CONFLICT'} end
local replaced = string.sub(KEYS[1], 1, -#ARGV[3] - 1) .. ARGV[5]
if unfinished(redis.call('HGET', replaced, 'state')) then return {'CONFLICT'} end
if redis.call('HGET', KEYS[7], old) == ARGV[3] then redis.call('HDEL', KEYS[7], old) end
redis.call('HSET', KEYS[1], 'path_base64', ARGV[4])
redis.call('HSET', KEYS[7], ARGV[4], ARGV[3])
return {'OK'}
"""
)

# KEYS: stream, requests. ARGV: id, request (JSON), most that may stand. Replaces an earlier request.
PLACE_REQUEST = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'GONE'} end
local stands = redis.call('HGET', KEYS[2], ARGV[1])
if not stands and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return {'FULL'} end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {'OK'}
"""

# KEYS: stream, requests. ARGV: owner, epoch, id, token, outcome (JSON). Only the request that was carried
# out is taken away, not one that was given since.
COMPLETE_REQUEST = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local stands = redis.call('HGET', KEYS[2], ARGV[3])
local read, request = pcall(cjson.decode, stands or '')
if not stands or (read and type(request) == 'table' and request.token ~= ARGV[4]) then return {'DUP'} end
redis.call('HSET', KEYS[1], 'outcome', ARGV[5])
redis.call('HDEL', KEYS[2], ARGV[3])
return {'OK'}
"""
)

# KEYS: paths. ARGV: prefix of stream keys, path, kind of error, error. Not fenced: it says what a daemon met,
# no more.
SET_LAST_ERROR = (
    CLOCK
    + """
local id = redis.call('HGET', KEYS[1], ARGV[2])
local state = id and redis.call('HGET', ARGV[1] .. id, 'state')
if state and unfinished(state) then
  redis.call('HSET', ARGV[1] .. id, 'error_kind', ARGV[3], 'error', ARGV[4])
end
return {'OK'}
"""
)

# KEYS: stream. ARGV: volume. Not fenced: every daemon that sees the source may say where it is.
SET_VOLUME = (
    CLOCK
    + """
if unfinished(redis.call('HGET', KEYS[1], 'state')) then redis.call('HSET', KEYS[1], 'volume', ARGV[1]) end
return {'OK'}
"""
)

# KEYS: as every write. ARGV: owner, epoch. Chunk records that cannot be are forgotten with all others: S3
# still has the chunks, and is asked for each before anything is sent.
RESET = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
if not unfinished(redis.call('HGET', KEYS[1], 'state')) then return {'CONFLICT'} end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'next_index', '0', 'offset', '0')
return {'OK'}
"""
)

# KEYS: as every write, inodes. ARGV: owner, epoch, id, born ns, signature (5). The same recording in a file
# with another inode or other times.
RESIGN = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
redis.call('HSET', KEYS[1], 'born_ns', ARGV[4])
redis.call('HSET', KEYS[8], ARGV[8] .. ':' .. ARGV[9], ARGV[3])
sign(KEYS[1], 5)
return {'OK'}
"""
)

# KEYS: as every write. ARGV: owner, epoch, chunks, bytes. Of a finished stream: what its manifest commits,
# which may be more or less than was recorded since.
EXTENT = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
if unfinished(redis.call('HGET', KEYS[1], 'state')) then return {'CONFLICT'} end
redis.call('HSET', KEYS[1], 'next_index', ARGV[3], 'offset', ARGV[4])
return {'OK'}
"""
)

# KEYS: stream, chunks, active, complete, incomplete, failed, paths. ARGV: id, path (base64, '' if unknown).
# For a record that cannot be ours: nobody can hold its lease.
DISCARD = """
if ARGV[2] ~= '' and redis.call('HGET', KEYS[7], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[7], ARGV[2])
end
redis.call('DEL', KEYS[1], KEYS[2])
for i = 3, 6 do redis.call('ZREM', KEYS[i], ARGV[1]) end
return {'OK'}
"""
