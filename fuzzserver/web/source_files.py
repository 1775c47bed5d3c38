"""Which files are sources, and how they are opened. The one place that decides what leaves this machine.

Handed out is what the compiler's list of inputs, the debug info or ``--source`` names, wherever that is: who
fuzzes an executable runs it, and trusts what it says. What no name says is not handed out, and some things
never are:

* A link leads to where sources are, or it is refused. A project by somebody else, or a program that writes
  into it, may hold a link to whatever its user can read. That a folder of sources is itself behind a link
  does not matter, and a hard link is the file.
* What is secret by custom: files whose names begin with a dot or tell of a key, and what lies in a
  folder of Git, of keys or of what others keep keys in. To embed one in a program makes it no less secret.
* What is made by the system as it is read, and secrets that it hands to programs: ``/proc``, ``/sys``,
  ``/dev`` and ``/run/secrets``. Much of it looks like a regular file. ``/dev/shm`` is another ``/tmp``.
* What is no regular file. It is not even opened: to open a pipe may take for ever, and to open a
  device may do something.
"""

import errno
import os
import re
import stat
from collections.abc import Container, Iterable, Iterator

from fuzzserver.step import SourcePath

__all__ = ["SourceFolders", "folder_of"]

_SECRET_FILE = re.compile(r"\.|id_(?:rsa|dsa|ecdsa|ed25519)|.*\.(?:pem|key|p12|pfx)\Z", re.DOTALL)
_SECRET_FOLDERS = frozenset((".git", ".ssh", ".gnupg", ".aws", ".kube", ".docker", ".mozilla"))
_SYSTEM = re.compile(r"/+(?:proc|sys|dev(?!/+shm/)|run/+secrets)/")


def folder_of(path: SourcePath) -> str:
    """The folder that a source belongs to: its root, if the path below that really leads below it."""
    if os.path.isabs(path.sub_path) or ".." in path.sub_path.split("/"):
        return os.path.dirname(path.location)
    return os.path.join(path.base_dir, path.root_dir)


class SourceFolders:
    """The folders that sources belong to, as they are when this is made."""

    def __init__(self, folders: Iterable[str]) -> None:
        # Of folders in each other, the outermost counts: one further in may be a link that leads out of it.
        named: dict[str, str] = {}
        for absolute, folder in sorted(_absolute(folders)):
            if not _is_below(absolute, named):
                named[absolute] = folder
        # Not of the absolute names: what ".." behind a link means, only the system knows.
        self._real = {os.path.realpath(folder) for folder in named.values()}

    def open(self, location: str) -> int:
        """A descriptor for reading a source. OSError says why it is none; ValueError, that no file can be.

        What was looked at is what is opened, whatever takes its place in between.
        """
        _check_name(location)
        pin = os.open(location, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(pin).st_mode):
                raise _refusal("not a regular file", location)
            way = f"/proc/self/fd/{pin}"
            real = os.readlink(way).removesuffix(" (deleted)")
            _check_name(real)
            if not _is_below(real, self._real):
                raise _refusal("a link that leads out of the folders of sources", location)
            # Whoever holds a lease on a file can make others wait for it.
            return os.open(way, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(pin)


def _absolute(folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each folder that can be there, by its absolute name and as it is called."""
    for folder in set(folders):
        try:
            if "\0" not in folder:
                yield os.path.abspath(folder), folder
        except OSError:
            pass  # It is relative to a working folder that is gone.


def _is_below(path: str, folders: Container[str]) -> bool:
    """Whether ``path`` is in one of ``folders``, or in a folder in it."""
    parent = os.path.dirname(path)
    while parent != path and parent not in folders:
        path, parent = parent, os.path.dirname(parent)
    return parent != path


def _check_name(location: str) -> None:
    """OSError if that is no name of a source, for whoever named it."""
    *folders, name = location.lower().split("/")
    if _SECRET_FILE.match(name) or not _SECRET_FOLDERS.isdisjoint(folders):
        raise _refusal("by its name, it is not for others", location)
    if _SYSTEM.match(location):
        raise _refusal("a file of the system, not of a program", location)


def _refusal(why: str, location: str) -> OSError:
    return OSError(errno.EPERM, why, location)
