"""Checkpoint files: the state of a sandbox in one file that is verified before anything is restored from it.

Layout, each large part beginning at a page boundary::

    memory of worker 0          raw, at offset 0
    memory of workers 1, 2...   raw
    data of files               raw
    small parts                 zstandard frames
    manifest                    msgpack map
    trailer                     64 bytes: magic, format, offset, length and BLAKE2b of the manifest

The directory is at the end, as in a ZIP file, so that the memory of the usual single worker is where the worker puts
it and finds it: the file itself is its memory file, written in place and mapped privately on restore.

A file is written without a name in the target's directory and linked there when it is complete; so a failed save
leaves nothing, and an existing file is replaced as a whole, as ``tar -f`` does.  Every part has a BLAKE2b checksum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no types
import zstandard

from .. import __version__
from . import guest_machine
from .errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FORMAT_VERSION", "Checkpoint", "CheckpointWriter", "Part"]

#: Raised whenever the layout or the meaning of a part changes.
FORMAT_VERSION = 2

_MAGIC = b"\x89greenroom\r\n\x1a\n\0\0"
_TRAILER = struct.Struct("<16sIIQQ16s8x")
_PAGE = 4096
_DIGEST_BYTES = 16
_COPY_BYTES = 1 << 20
#: Bytes of a manifest, and of one small part when decompressed: far above what a sandbox can have.
_MAX_MANIFEST_BYTES = 64 << 20
_MAX_PART_BYTES = 1 << 30


class Part(NamedTuple):
    """One part, as the manifest lists it."""

    name: str
    #: "memory", "files" or "state".
    kind: str
    offset: int
    length: int
    digest: bytes


def _digest(fd: int, offset: int, length: int) -> bytes:
    """Return the checksum of a range of a file. CheckpointError when it is cut off."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for data in _read(fd, offset, length):
        digest.update(data)
    return digest.digest()


def _read(fd: int, offset: int, length: int) -> Iterator[bytes]:
    end = offset + length
    while offset < end:
        data = os.pread(fd, min(_COPY_BYTES, end - offset), offset)
        if not data:
            raise CheckpointError(f"the file is cut off at byte {offset}: copy it again, or save again")
        offset += len(data)
        yield data


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _copy(source: int, start: int, length: int, target: int, offset: int) -> None:
    """Copy a range between files; holes stay holes where the pages are zero."""
    for data in _read(source, start, length):
        if data.strip(b"\0"):
            _write(target, data, offset)
        offset += len(data)


def _align(offset: int) -> int:
    return (offset + _PAGE - 1) // _PAGE * _PAGE


class CheckpointWriter:
    """A checkpoint file in the making. Use it as a context manager: without :meth:`finish` nothing is left."""

    def __init__(self, path: str, workers: int) -> None:
        """Open the files that *workers* workers and the mount namespace write to. CheckpointError."""
        self._path = path
        #: Name of the incomplete file, while it has one.
        self._partial = ""
        try:
            self._fd = self._create()
        except OSError as error:
            raise CheckpointError(f"cannot write in {os.path.dirname(path)}: {error.strerror}") from None
        self._others = [os.memfd_create("memory") for _ in range(workers - 1)]
        self._files = os.memfd_create("files")

    def _create(self) -> int:
        """Open the file without a name, or with a provisional one where the file system knows no other (NFS)."""
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(os.path.dirname(self._path), flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
        self._partial = f"{self._path}.{os.getpid()}.partial"
        return os.open(self._partial, flags | os.O_CREAT | os.O_EXCL, 0o600)

    @property
    def memory_fds(self) -> tuple[int, ...]:
        """Where each worker writes its guests' memory, from offset 0; still the writer's."""
        return (self._fd, *self._others)

    @property
    def files_fd(self) -> int:
        """Where the mount namespace writes the data of files; still the writer's."""
        return self._files

    def finish(self, states: Mapping[str, bytes], manifest: Mapping[str, Any]) -> int:
        """Add the small parts and the manifest, and give the file its name. Returns its length in bytes.

        CheckpointError when the disk is full or the name cannot be taken.
        """
        try:
            return self._finish(states, manifest)
        except OSError as error:
            raise CheckpointError(f"cannot write {self._path}: {error.strerror}") from None

    def _finish(self, states: Mapping[str, bytes], manifest: Mapping[str, Any]) -> int:
        length = os.fstat(self._fd).st_size
        parts = [Part("memory:0", "memory", 0, length, _digest(self._fd, 0, length))]
        offset = _align(length)
        for number, fd in enumerate(self._others, 1):
            offset = self._append_file(parts, f"memory:{number}", "memory", fd, offset)
        offset = self._append_file(parts, "files", "files", self._files, offset)
        compressor = zstandard.ZstdCompressor(write_content_size=True)
        for name, state in states.items():
            packed = compressor.compress(state)
            _write(self._fd, packed, offset)
            digest = hashlib.blake2b(packed, digest_size=_DIGEST_BYTES).digest()
            parts.append(Part(name, "state", offset, len(packed), digest))
            offset += len(packed)
        return self._append_manifest(parts, manifest, offset)

    def _append_file(self, parts: list[Part], name: str, kind: str, fd: int, offset: int) -> int:
        length = os.fstat(fd).st_size
        _copy(fd, 0, length, self._fd, offset)
        os.ftruncate(self._fd, offset + length)
        parts.append(Part(name, kind, offset, length, _digest(fd, 0, length)))
        return _align(offset + length)

    def _append_manifest(self, parts: list[Part], manifest: Mapping[str, Any], offset: int) -> int:
        own = {
            "greenroom": __version__,
            "created_ns": time.time_ns(),
            "cpu_features": guest_machine.cpu_features(),
            "application_cores": guest_machine.application_cores(),
            "parts": [tuple(part) for part in parts],
        }
        packed: bytes = msgpack.packb({**manifest, **own})
        digest = hashlib.blake2b(packed, digest_size=_DIGEST_BYTES).digest()
        trailer = _TRAILER.pack(_MAGIC, FORMAT_VERSION, 0, offset, len(packed), digest)
        _write(self._fd, packed + trailer, offset)
        os.fsync(self._fd)
        self._give_name()
        return offset + len(packed) + len(trailer)

    def _give_name(self) -> None:
        """Put the file where it belongs, over whatever is there, which link(2) alone would not replace."""
        if not self._partial:
            self._partial = f"{self._path}.{os.getpid()}.partial"
            # With a directory given, os.link follows the link in /proc to the file, which link(2) does not.
            os.link(f"/proc/self/fd/{self._fd}", self._partial, src_dir_fd=self._fd, follow_symlinks=True)
        os.replace(self._partial, self._path)
        self._partial = ""

    def close(self) -> None:
        """Close the files."""
        if self._partial:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
        for fd in (self._fd, self._files, *self._others):
            os.close(fd)

    def __enter__(self) -> CheckpointWriter:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


class Checkpoint:
    """A complete and verified checkpoint file, open for restoring."""

    def __init__(self, fd: int, path: str, manifest: dict[str, Any]) -> None:
        """Use :meth:`open`."""
        self._fd = fd
        self._path = path
        #: What the writer was given, and "greenroom", "created_ns", "cpu_features", "application_cores".
        self.manifest = manifest
        self.parts = tuple(Part(*part) for part in manifest["parts"])

    @classmethod
    def open(cls, path: str) -> Checkpoint:
        """Open and verify every byte of the file at *path*. CheckpointError says what is wrong and what to do."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
        try:
            checkpoint = cls(fd, path, _read_manifest(fd, path))
            checkpoint._verify()
        except BaseException:
            os.close(fd)
            raise
        return checkpoint

    def _verify(self) -> None:
        for part in self.parts:
            if _digest(self._fd, part.offset, part.length) != part.digest:
                raise CheckpointError(f"{self._path} is damaged in part {part.name!r}: copy it again, or save again")

    def check_host(self) -> None:
        """CheckpointError unless this host has the CPU features and cores that the guest was shown."""
        missing = sorted(set(self.manifest["cpu_features"]) - set(guest_machine.cpu_features()))
        if missing:
            raise CheckpointError(
                f"{self._path} was saved on a CPU with {', '.join(missing)}, which this one lacks: "
                "restore it on such a CPU"
            )
        wanted, found = self.manifest["application_cores"], guest_machine.application_cores()
        if found < wanted:
            raise CheckpointError(
                f"{self._path} needs {wanted} cores and this process may use {found}: "
                "allow it more (taskset, cgroup cpuset) or restore it elsewhere"
            )

    def states(self) -> dict[str, bytes]:
        """Return the small parts by name."""
        decompressor = zstandard.ZstdDecompressor()
        return {
            part.name: decompressor.decompress(
                b"".join(_read(self._fd, part.offset, part.length)), max_output_size=_MAX_PART_BYTES
            )
            for part in self.parts
            if part.kind == "state"
        }

    def open_memory(self) -> list[int]:
        """Return a descriptor for each worker's memory, which begins at its offset 0; the caller owns them."""
        return [self._open_part(part) for part in self.parts if part.kind == "memory"]

    def open_files(self) -> int:
        """Return a descriptor for the data of files, which begins at its offset 0; the caller owns it."""
        return next(self._open_part(part) for part in self.parts if part.kind == "files")

    def _open_part(self, part: Part) -> int:
        """Give the file itself when the part is at its beginning, else a copy in memory."""
        if part.offset == 0 and part.kind == "memory":
            return os.dup(self._fd)
        fd = os.memfd_create(part.name)
        _copy(self._fd, part.offset, part.length, fd, 0)
        os.ftruncate(fd, part.length)
        return fd

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Checkpoint:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _read_manifest(fd: int, path: str) -> dict[str, Any]:
    size = os.fstat(fd).st_size
    trailer = os.pread(fd, _TRAILER.size, max(0, size - _TRAILER.size))
    if len(trailer) < _TRAILER.size or not trailer.startswith(_MAGIC):
        raise CheckpointError(f"{path} is no greenroom checkpoint, or it is cut off: copy it again, or save again")
    _, version, _, offset, length, digest = _TRAILER.unpack(trailer)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version} and this greenroom ({__version__}) reads {FORMAT_VERSION}: "
            "restore it with the version that saved it"
        )
    if offset + length + _TRAILER.size != size or length > _MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{path} is cut off or damaged: copy it again, or save again")
    packed = b"".join(_read(fd, offset, length))
    if hashlib.blake2b(packed, digest_size=_DIGEST_BYTES).digest() != digest:
        raise CheckpointError(f"{path} is damaged in its manifest: copy it again, or save again")
    try:
        manifest: dict[str, Any] = msgpack.unpackb(packed)
    except ValueError as error:
        raise CheckpointError(f"{path} has no readable manifest: {error}") from None
    return manifest
