"""Let the n-th call to the disk fail, below all code of the project, or end the process there.

Only calls for paths in a folder count, so that imports and libraries elsewhere are left alone. Files that are written
are of Python's own classes, with a raw file that counts, so that libraries see nothing unusual.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

KINDS = ("ENOSPC", "EACCES", "EIO", "kill")
KILLED = 77
"""Exit status of a process that a fault ended."""
ROOM = {"open for writing", "write", "rename", "link", "mkdir", "fsync", "truncate"}
"""What a full disk refuses; it lets files be read and removed."""
REMOVING = {"unlink", "rmdir"}


class Faults:
    """Counts the calls, and lets the n-th fail.

    Parameters
    ----------
    folder : Path
        Calls for paths in it count.
    kind : str
        A name of ``errno``, or "kill". A full disk stays full; other errors happen once.
    n : int
        The number of the call that fails; 0 for none.
    """

    def __init__(self, folder, kind="EIO", n=0):
        self.folder, self.kind, self.n = os.path.realpath(folder), kind, n
        self.calls, self.hit = [], None
        self._lock = threading.Lock()

    def call(self, name, path):
        """Count a call, and raise its error."""
        place = os.path.realpath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else None
        if place is None or not (place + "/").startswith(self.folder + "/"):
            return
        with self._lock:
            if self.kind == "ENOSPC" and name not in ROOM:
                return
            self.calls.append((name, place))
            due = len(self.calls) == self.n or (self.kind == "ENOSPC" and 0 < self.n <= len(self.calls))
            if due and self.hit is None:
                self.hit = (name, place)
        if due and self.kind == "kill":
            os._exit(KILLED)
        if due:
            number = getattr(errno, self.kind)
            # As the system does: calls for a file that is open name no file.
            file = () if name in {"write", "fsync", "truncate"} else (os.fspath(path),)
            raise OSError(number, os.strerror(number), *file)


def _raw_class(faults, path):
    class Raw(io.FileIO):
        def write(self, data):
            faults.call("write", path)
            return super().write(data)

        def truncate(self, size=None):
            faults.call("truncate", path)
            return super().truncate(size)

    return Raw


def _open(faults, real):
    def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if isinstance(file, int):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        writes = bool(set(mode) & set("wax+"))
        faults.call("open for writing" if writes else "open", file)
        if not writes:
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _raw_class(faults, file)(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        text = io.TextIOWrapper(binary, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    return open_


def _counted(faults, name, real):
    def call(path, *args, **options):
        faults.call(name, path)
        return real(path, *args, **options)

    return call


def _os_open(faults, real):
    def open_(path, flags, mode=0o777, *, dir_fd=None):
        faults.call("open for writing" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "open", path)
        return real(path, flags, mode, dir_fd=dir_fd)

    return open_


def _path_of(descriptor):
    """Give the path of an open file or folder; another one where the system does not tell."""
    with suppress(OSError):
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    return Path(os.devnull)


def _of_descriptor(faults, name, real):
    def call(descriptor, *args):
        if isinstance(descriptor, int):
            faults.call(name, _path_of(descriptor))
        else:
            faults.call(name, descriptor)
        return real(descriptor, *args)

    return call


def _unlink(faults, name, real):
    def call(path, *, dir_fd=None):
        if dir_fd is None:
            faults.call(name, path)
        else:
            faults.call(name, Path(_path_of(dir_fd), os.fsdecode(path)))
        return real(path, dir_fd=dir_fd)

    return call


def _save_file(faults, real):
    from safetensors import SafetensorError

    def save(tensors, path, *args, **options):
        try:
            faults.call("write", path)
        except OSError as error:  # as the library, which is no Python, says it
            Path(path).touch()
            raise SafetensorError(f"Error while serializing: I/O error: {error.strerror}") from error
        return real(tensors, path, *args, **options)

    return save


@contextmanager
def happening(faults):
    """Let faults happen until the block ends."""
    import safetensors.torch

    opened = _open(faults, io.open)
    replaced = {
        (builtins, "open"): opened,
        (io, "open"): opened,
        (os, "open"): _os_open(faults, os.open),
        (safetensors.torch, "save_file"): _save_file(faults, safetensors.torch.save_file),
    }
    for name, kind in {"replace": "rename", "rename": "rename", "link": "link", "mkdir": "mkdir"}.items():
        replaced[os, name] = _counted(faults, kind, getattr(os, name))
    for name, kind in {"unlink": "unlink", "remove": "unlink", "rmdir": "rmdir"}.items():
        replaced[os, name] = _unlink(faults, kind, getattr(os, name))
    for name in ("fsync", "truncate", "posix_fallocate"):
        replaced[os, name] = _of_descriptor(faults, "write" if "fall" in name else name, getattr(os, name))
    before = {(module, name): getattr(module, name) for module, name in replaced}
    try:
        for (module, name), function in replaced.items():
            setattr(module, name, function)
        yield faults
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)
