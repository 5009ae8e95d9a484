"""Which folder the records of a namespace are about."""

from typing import TYPE_CHECKING, Any

from errors import StoreUnavailable
from redis_store.errors import translated
from redis_store.fields import DamagedRecord, decode_path, encode_path
from redis_store.index import RecordIndex

if TYPE_CHECKING:
    import redis

LIVE_SECONDS = 30
"""A daemon that claimed a folder within that time runs; each one does so every 5 s."""

# KEYS: folders. ARGV: inode, birth (ns, 0 if unknown), path (base64), owner, ms for which a claim lives.
# Each field is "inode:birth", each value "ms owner path". A folder of which neither the identity nor the
# path is known is another one. One of a known path was made anew, or its volume was mounted, unless the
# former one is in use by another daemon at this moment: then two machines have two folders of one name.
CLAIM = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local others, former, field = '', {}, ARGV[1] .. ':' .. ARGV[2]
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local inode, born = string.match(all[i], '^(.*):(.*)$')
  local at, owner, path = string.match(all[i + 1], '^(%d+) (.*) (.*)$')
  if inode == ARGV[1] and (born == ARGV[2] or born == '0' or ARGV[2] == '0') then
    redis.call('HSET', KEYS[1], all[i], string.format('%.0f %s %s', now, ARGV[4], ARGV[3]))
    return {'OK'}
  end
  others = path or ''
  if path == ARGV[3] then
    if owner ~= ARGV[4] and now - at < tonumber(ARGV[5]) then return {'IN_USE', owner} end
    former[#former + 1] = all[i]
  end
end
if #all > 0 and #former == 0 then return {'OTHER', others} end
for _, each in ipairs(former) do redis.call('HDEL', KEYS[1], each) end
redis.call('HSET', KEYS[1], field, string.format('%.0f %s %s', now, ARGV[4], ARGV[3]))
return {'OK'}
"""


class FolderRecords(RecordIndex):
    """The folder of one namespace of one Redis. Safe to use from any thread.

    Every method raises `StoreUnavailable` when Redis is down or refuses us.

    Parameters:
        client: made by `checkpoint.connect`.
        namespace: first part of every key.
        owner: names this process among all that share the namespace; never used twice.
    """

    def __init__(self, client: "redis.Redis", *, namespace: str, owner: str) -> None:
        super().__init__(client, namespace=namespace)
        self._owner = owner
        self._claim = client.register_script(CLAIM)
        self._folders = self._base + "folders"

    def claim_folder(self, inode: int, born_ns: int, path: str) -> None:
        """Make sure that the records are about this folder, and say that it is in use.

        Two folders in one namespace would take each other's recordings for replaced ones, without end.

        Parameters:
            inode: of the watched folder.
            born_ns: its birth time, 0 if unknown.
            path: where it is on this machine, absolute.

        Raises:
            StoreUnavailable: `folder`; `refused` if the records are about a folder with another path.
        """
        with translated():
            reply: Any = self._claim(
                keys=[self._folders],
                args=[inode, born_ns, encode_path(path), self._owner, LIVE_SECONDS * 1000],
            )
        if reply[0] == "OTHER":
            reason = f"the records in Redis are about the folder {_shown(reply[1])}, not {path}"
            raise StoreUnavailable(reason, service="redis", kind="folder", refused=True)
        if reply[0] == "IN_USE":
            reason = f"another folder {path} is being uploaded by {reply[1]}"
            raise StoreUnavailable(reason, service="redis", kind="folder")


def _shown(encoded: str) -> str:
    try:
        return decode_path(encoded)
    except DamagedRecord:
        return "(unreadable)"
