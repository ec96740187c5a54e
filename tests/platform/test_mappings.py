"""File mappings by descriptor, and the shelf that tracees take descriptors from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from guests import DATA, MAP_PRIVATE, MAP_SHARED, PAGE, PROT_READ, PROT_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from greenroom.platform.ptrace.platform import PtracePlatform


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.write(fd, b"first page".ljust(PAGE, b"."))
    os.write(fd, b"second page".ljust(PAGE, b"."))
    yield fd
    os.close(fd)


def shelf_size(platform: PtracePlatform) -> int:
    """Return how many descriptors the tracees share, by asking the host."""
    task = platform.create_task()
    try:
        return len(os.listdir(f"/proc/{task.host_tid}/fd"))
    finally:
        task.kill()


def test_private_mapping_reads_the_file_and_keeps_writes(platform: PtracePlatform, memfd: int) -> None:
    task = platform.create_task()
    task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, PAGE)
    assert task.space.read(DATA, 11) == b"second page"
    task.space.write(DATA, b"SECOND")
    assert os.pread(memfd, 6, PAGE) == b"second"


def test_shared_mapping_writes_the_file(platform: PtracePlatform, memfd: int) -> None:
    one, other = platform.create_task(), platform.create_task()
    for task in (one, other):
        task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0)
    one.space.write(DATA, b"FIRST")
    assert os.pread(memfd, 5, 0) == b"FIRST"
    assert other.space.read(DATA, 5) == b"FIRST"


def test_access_mode_of_the_descriptor_counts(platform: PtracePlatform, tmp_path: Path) -> None:
    """A file that stands on the shelf read-only is not mapped writable, and the other way round nothing is lost."""
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    task = platform.create_task()
    for mode, allowed in ((os.O_RDONLY, False), (os.O_RDWR, True), (os.O_RDONLY, False)):
        fd = os.open(path, mode)
        try:
            if allowed:
                task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd)
                continue
            with pytest.raises(PermissionError):
                task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd)
        finally:
            os.close(fd)


def test_a_file_is_passed_once(platform: PtracePlatform, memfd: int) -> None:
    before = shelf_size(platform)
    for _ in range(3):
        task = platform.create_task()
        task.mmap(DATA, PAGE, PROT_READ, MAP_PRIVATE, memfd)
        task.kill()
    assert shelf_size(platform) == before + 1


def test_a_deleted_file_is_not_mistaken_for_its_successor(platform: PtracePlatform, tmp_path: Path) -> None:
    """An inode number is reused after a deletion, but not while the shelf holds the file open."""
    task = platform.create_task()
    for content in (b"old", b"new"):
        path = tmp_path / "file"
        path.write_bytes(content)
        with path.open("rb") as file:
            task.mmap(DATA, PAGE, PROT_READ, MAP_PRIVATE, file.fileno())
        assert task.space.read(DATA, 3) == content
        path.unlink()


def test_shelf_has_a_limit(
    make_platform: type[PtracePlatform], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("greenroom.platform.ptrace.platform._SHELF_LIMIT", 4)
    platform = make_platform()
    platform.start()
    try:
        task = platform.create_task()
        for index in [*range(10), *range(10)]:
            path = tmp_path / str(index)
            path.write_bytes(b"%d" % index)
            with path.open("rb") as file:
                task.mmap(DATA, PAGE, PROT_READ, MAP_PRIVATE, file.fileno())
            assert task.space.read(DATA, 1) == b"%d" % index
        assert shelf_size(platform) == 1 + 4
    finally:
        platform.close()


def test_a_device_is_mapped_and_does_not_stay(platform: PtracePlatform) -> None:
    before = shelf_size(platform)
    task = platform.create_task()
    fd = os.open("/dev/zero", os.O_RDWR)
    task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd)
    os.close(fd)
    assert task.space.read(DATA, 4) == bytes(4)
    assert shelf_size(platform) == before


def test_what_cannot_be_mapped_raises_the_hosts_error(platform: PtracePlatform) -> None:
    before = shelf_size(platform)
    task = platform.create_task()
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="No such device"):
        task.mmap(DATA, PAGE, PROT_READ, MAP_PRIVATE, reader)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        task.mmap(DATA, PAGE, PROT_READ, MAP_PRIVATE, reader)
    assert shelf_size(platform) == before
