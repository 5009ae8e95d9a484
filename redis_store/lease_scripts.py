"""The Lua of leases: one holder a stream, fenced by an epoch, timed by the clock of Redis alone.

`FENCE` begins every write to a record (`scripts.py`): it goes through only for the owner and epoch that hold
the lease.
"""

CLOCK = """
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function int(n) return string.format('%.0f', n) end
local function unfinished(state) return state == 'active' or state == 'finalizing' end
local function mend(stream, chunks)
  if redis.call('HLEN', chunks) == tonumber(redis.call('HGET', stream, 'next_index')) then return end
  redis.call('DEL', chunks)
  redis.call('HSET', stream, 'next_index', '0', 'offset', '0')
end
local function grant(stream, id, epoch, previous, first)
  return {'OK', id, epoch, previous, redis.call('HMGET', stream, unpack(ARGV, first))}
end
"""

FENCE = (
    CLOCK
    + """
local function fence(stream, owner, epoch)
  local held = redis.call('HMGET', stream, 'owner', 'epoch')
  if not held[2] then return 'GONE' end
  if held[1] ~= owner or held[2] ~= epoch then return 'FENCED' end
end
local function sha256(record)
  local read, content = pcall(cjson.decode, record)
  return read and type(content) == 'table' and content.sha256
end
local function newest(stream, paths)
  local id = redis.call('HGET', paths, redis.call('HGET', stream, 'path_base64')) or ''
  return string.sub(stream, -#id - 8) == ':stream:' .. id
end
local function sign(stream, first)
  redis.call('HSET', stream, 'size', ARGV[first], 'mtime_ns', ARGV[first + 1],
    'ctime_ns', ARGV[first + 2], 'dev', ARGV[first + 3], 'ino', ARGV[first + 4])
end
"""
)

# KEYS: stream, chunks, requests. ARGV: owner, ttl ms, id, fields. Grants a lease: id, its epoch, the one
# before, the values of the fields, and the operator's request that stands. No lease lasts longer than the
# ttl from now: after the clock was set back it would.
ACQUIRE = (
    CLOCK
    + """
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'lease_until', 'state')
if not held[4] then return {'GONE'} end
local before = held[2] or '0' -- somebody may have deleted it
local now, ttl = now_us(), tonumber(ARGV[2]) * 1000
local left = (tonumber(held[3]) or 0) - now
if left > ttl then redis.call('HSET', KEYS[1], 'lease_until', int(now + ttl)) end
if left > 0 and held[1] ~= ARGV[1] then return {'BUSY', held[1], int(left / 1000)} end
local epoch = math.max((tonumber(before) or 0) + 1, now)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', int(epoch), 'lease_until', int(now + ttl))
if unfinished(held[4]) then mend(KEYS[1], KEYS[2]) end
local granted = grant(KEYS[1], ARGV[3], int(epoch), before, 4)
granted[6] = redis.call('HGET', KEYS[3], ARGV[3])
return granted
"""
)

# KEYS: active. ARGV: prefix of stream keys. Ends every lease, where all other holders are known to be dead.
END_ALL = """
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('EXISTS', ARGV[1] .. id) == 1 then
    redis.call('HSET', ARGV[1] .. id, 'lease_until', '0', 'owner', '')
  end
end
return {'OK'}
"""

# KEYS: stream. ARGV: owner, epoch, ttl ms (0 releases). A released lease has no owner, so that a
# renewal on its way at that moment cannot bring it back.
RENEW = (
    FENCE
    + """
local refused = fence(KEYS[1], ARGV[1], ARGV[2])
if refused then return {refused} end
local ttl = tonumber(ARGV[3])
if ttl > 0 then redis.call('HSET', KEYS[1], 'lease_until', int(now_us() + ttl * 1000))
else redis.call('HSET', KEYS[1], 'lease_until', '0', 'owner', '') end
return {'OK'}
"""
)
