"""A folder on a file system of our own (FUSE) that fails when it is told to, as a dying disk or NFS does.

The messages are those of `linux/fuse.h`, protocol 7.31; only what reading needs is spoken.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _PR_SET_PDEATHSIG = 1, 1
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE = 1, 2, 3, 14, 15, 18
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 26, 27, 28, 29, 42
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_MESSAGE_BYTES = 1024 * 1024 + 4096
_DIRECT_IO = 1  # no page cache: every read comes here
_NAMES = {"lookup": _LOOKUP, "getattr": _GETATTR, "open": _OPEN, "read": _READ, "opendir": _OPENDIR}


def mounted(folder: str, backing: str, fault: str) -> None:
    """Mount in a namespace of this process, which must have one thread, and serve in a child of it.

    Parameters:
        folder: where.
        backing: the folder that is shown there.
        fault: a file that says `<operation> <errno> <name>` while that shall fail.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _check(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    _check(libc.mount(b"test", os.fsencode(folder), b"fuse", _MS_RDONLY, options))
    if os.fork() == 0:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _Server(device, backing, fault).serve()
        os._exit(0)
    os.close(device)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Server:
    def __init__(self, device: int, backing: str, fault: str) -> None:
        self._device, self._fault = device, fault
        self._paths = {1: backing}
        self._ids = {backing: 1}
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _INIT: self._init,
            _LOOKUP: self._lookup,
            _GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + _attributes(self._paths[node], node),
            _OPEN: lambda node, _: struct.pack(
                "<QII", os.open(self._paths[node], os.O_RDONLY), _DIRECT_IO, 0
            ),
            _READ: lambda _, body: os.pread(*_read_arguments(body)),
            _RELEASE: self._release,
            _OPENDIR: lambda _node, _body: bytes(16),
            _READDIR: self._readdir,
            _RELEASEDIR: lambda _node, _body: b"",
        }

    def serve(self) -> None:
        """Answer until the mount is gone."""
        while True:
            try:
                message = os.read(self._device, _MESSAGE_BYTES)
            except OSError:
                return
            _, operation, unique, node, *_ = _IN.unpack_from(message)
            if operation in (_FORGET, _BATCH_FORGET):
                continue
            body, failed, answer = message[_IN.size :], 0, b""
            try:
                self._fail_as_told(operation, node, body)
                if operation not in self._answers:
                    raise OSError(errno.ENOSYS, "")
                answer = self._answers[operation](node, body)
            except OSError as error:
                failed = -(error.errno or errno.EIO)
            os.write(self._device, _OUT.pack(_OUT.size + len(answer), failed, unique) + answer)

    def _fail_as_told(self, operation: int, node: int, body: bytes) -> None:
        try:
            wanted, number, name = Path(self._fault).read_text().split()
        except (FileNotFoundError, ValueError):
            return
        here = os.fsdecode(body[:-1]) if operation == _LOOKUP else os.path.basename(self._paths.get(node, ""))
        if operation == _NAMES[wanted] and here == name:
            raise OSError(int(number), "")

    @staticmethod
    def _init(_node: int, body: bytes) -> bytes:
        _, _, readahead, _ = struct.unpack_from("<IIII", body)
        return struct.pack("<IIIIHHII", 7, 31, readahead, 0, 16, 12, 1024 * 1024, 1) + bytes(36)

    @staticmethod
    def _release(_node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _lookup(self, node: int, body: bytes) -> bytes:
        path = os.path.join(self._paths[node], os.fsdecode(body[:-1]))
        found = self._ids.get(path, len(self._ids) + 1)
        attributes = _attributes(path, found)
        self._ids[path], self._paths[found] = found, path
        return struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + attributes

    def _readdir(self, node: int, body: bytes) -> bytes:
        offset = struct.unpack_from("<QQ", body)[1]
        answer = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node])), 1):
            if number > offset and len(answer) < 3000:
                raw = os.fsencode(name)
                answer += struct.pack("<QQII", number, number, len(raw), 0) + raw + bytes(-len(raw) % 8)
        return answer


def _read_arguments(body: bytes) -> tuple[int, int, int]:
    handle, offset, size = struct.unpack_from("<QQI", body)
    return handle, size, offset


def _attributes(path: str, node: int) -> bytes:
    found = os.lstat(path)
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    mode = found.st_mode if stat.S_ISDIR(found.st_mode) else stat.S_IFREG | 0o644
    return struct.pack(
        "<QQQQQQIIIIIIIIII",
        node,
        found.st_size,
        found.st_blocks,
        *(time // 10**9 for time in times),
        *(time % 10**9 for time in times),
        mode,
        1,
        0,
        0,
        0,
        4096,
        0,
    )
