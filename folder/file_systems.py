"""What the kernel says of a folder: is a volume mounted there, are its changes told, may it be watched."""

import ctypes
import errno
import os

# Kinds of file system whose changes by other machines the kernel does not tell.
_SILENT = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "drvfs",
    "fakeowner",  # Docker Desktop's folders of a Mac
    "fuse",
    "gluster",
    "gpfs",
    "lustre",
    "nfs",
    "osxfs",
    "prl_fs",
    "smb",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
)

_MAX_WATCHES = "/proc/sys/fs/inotify/max_user_watches"
_IN_DELETE_SELF = 0x400  # inotify(7); any event will do


def is_mounted(folder: str) -> bool:
    """Return whether a volume of its own is mounted at a folder."""
    return os.path.ismount(os.path.realpath(folder))


def is_silent(folder: str) -> bool:
    """Return whether a folder lies on, or holds, a file system whose changes by others go unreported.

    Parameters:
        folder: absolute, without links.

    Raises:
        OSError: it cannot be opened.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount = _field(f"/proc/self/fdinfo/{fd}", b"mnt_id:")
        with open("/proc/self/mountinfo", "rb") as file:
            rows = [line.split(b" ") for line in file.read().split(b"\n") if line]
    except FileNotFoundError:  # not Linux: the native observer of that system knows
        return False
    finally:
        os.close(fd)
    below = os.fsencode(folder).rstrip(b"/") + b"/"
    return any(
        # proc_pid_mountinfo(5): id, parent, device, root, mount point, ..., "-", type, ...
        (row[0] == mount or unescaped(row[4]).startswith(below))
        and row[row.index(b"-", 6) + 1].decode().startswith(_SILENT)
        for row in rows
    )


def _field(path: str, name: bytes) -> bytes:
    with open(path, "rb") as file:
        return next((line.split()[1] for line in file if line.startswith(name)), b"")


def unescaped(point: bytes) -> bytes:
    """Undo the octal escapes of white space and backslashes."""
    return point.decode("unicode_escape").encode("latin-1")


def watch_limit_reached(folder: str) -> bool:
    """Return whether the kernel refuses one more inotify watch; watchdog leaves folders out silently."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return False
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:  # no instance left; that tells nothing about watches
        return False
    try:
        watch = libc.inotify_add_watch(fd, os.fsencode(folder), _IN_DELETE_SELF)
        return watch < 0 and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(fd)


def max_watches() -> int | None:
    """Return the number of folders that the kernel watches for one user; None where it has no such limit."""
    try:
        with open(_MAX_WATCHES, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
