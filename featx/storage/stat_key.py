"""What tells whether a file has changed since it was read: on this machine its size, mtime, ctime and inode.

Any program may set a file's mtime, and tar, `cp -p` and rsync do. Only the system sets its ctime: it becomes the
current time whenever the file's content, times, permissions, owner or name change. That holds on the file systems named
here. On others, the ctime may be invented or a copy of the mtime, so files there have to be read to find changes.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

#: File systems on which no change of a file leaves its ctime as it was; what the kernel calls them.
_KEEP_CTIME = frozenset(
    b"bcachefs btrfs ceph ext2 ext3 ext4 f2fs gpfs jfs lustre nfs nfs4 overlay tmpfs xfs zfs".split()
)
_MOUNTS = Path("/proc/self/mountinfo")  # Linux has it; elsewhere no ctime is relied on

#: A file changed less than this long ago may change again within one tick of its file system's clock, which is a second
#: for some. Git calls such a file racily clean.
RACY_NS = 2_000_000_000


class StatKey(NamedTuple):
    """What a file must still be for its digest to hold.

    Attributes:
        size: bytes.
        mtime_ns: when it was written, or what a program said of that.
        ctime_ns: when it was last changed in any way; 0 if its file system cannot be relied on for that.
        inode: wrapped to a signed 64-bit integer, for SQLite. A file elsewhere has none: it is 64 bits of whatever its
            file system says of its content, an ETag above all.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def is_settled(self, now_ns: int) -> bool:
        """Return whether any change after `now_ns` gives another key; False also if the file's clock is ahead."""
        ages_ns = now_ns - self.ctime_ns, abs(now_ns - self.mtime_ns)
        return self.ctime_ns != 0 and min(ages_ns) >= RACY_NS


class StatKeys:
    """Makes the keys of files, and remembers which file systems can be relied on."""

    def __init__(self) -> None:
        self._keeps_ctime: dict[int, bool] = {}  # by device

    def of(self, name: bytes, status: os.stat_result) -> StatKey:
        """Return the key of the file with the absolute path `name` in the state `status`."""
        device, inode = status.st_dev, status.st_ino  # on some file systems of Windows, an inode has 128 bits
        if device not in self._keeps_ctime:
            self._keeps_ctime[device] = _file_system_type(name) in _KEEP_CTIME
        return StatKey(
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns if self._keeps_ctime[device] else 0,
            (inode + (1 << 63)) % (1 << 64) - (1 << 63),
        )


def _file_system_type(name: bytes) -> bytes:
    """Return what kind of file system the file `name` is on; nothing if the system does not say.

    The path decides, not the number of the device: parts of a btrfs or an overlay have numbers of their own.
    """
    try:
        lines = _MOUNTS.read_bytes().splitlines()
        path = os.path.realpath(name)
    except (OSError, ValueError):
        return b""
    found, longest = b"", -1
    for line in lines:
        mount, _, rest = line.partition(b" - ")
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), mount.split(b" ")[4])
        # Of two with one mount point, the later hides the earlier.
        if os.path.join(path, b"").startswith(os.path.join(point, b"")) and len(point) >= longest:  # noqa: PTH118
            found, longest = rest.split(b" ")[0], len(point)
    return found
