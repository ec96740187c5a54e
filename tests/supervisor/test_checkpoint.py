"""A checkpoint file is restored whole or not at all."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from greenroom.supervisor import checkpoint, guest_machine
from greenroom.supervisor.actor import decode_spec, encode_spec
from greenroom.supervisor.checkpoint import Checkpoint, CheckpointWriter
from greenroom.supervisor.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from greenroom.config.spec import SandboxSpec

MEMORY = [b"\1" * 5000 + bytes(9000) + b"\2", b"other worker" * 700]
FILES = b"contents of files" * 300
STATES = {"kernel": b"k" * 100, "task_set": os.urandom(3000), "group:1": b""}


def write(path: Path, workers: int = 2) -> None:
    with CheckpointWriter(str(path), workers) as writer:
        for fd, data in zip(writer.memory_fds, MEMORY, strict=False):
            os.pwrite(fd, data, 0)
        os.pwrite(writer.files_fd, FILES, 0)
        assert writer.finish(STATES, {"command": "x"}) == path.stat().st_size


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "x.grs"
    write(path)
    return path


def test_everything_comes_back(saved: Path) -> None:
    with Checkpoint.open(str(saved)) as restored:
        assert restored.states() == STATES
        assert restored.manifest["command"] == "x"
        for fd, data in zip(restored.open_memory(), MEMORY, strict=True):
            assert os.pread(fd, len(data) + 1, 0).startswith(data)
            os.close(fd)
        files = restored.open_files()
        assert os.pread(files, len(FILES) + 1, 0) == FILES
        os.close(files)


def test_memory_is_the_file_itself_and_starts_at_a_page(saved: Path) -> None:
    with Checkpoint.open(str(saved)) as restored:
        fds = restored.open_memory()
        assert os.fstat(fds[0]).st_ino == saved.stat().st_ino
        assert [part.offset % 4096 for part in restored.parts if part.kind != "state"] == [0, 0, 0]
        for fd in fds:
            os.close(fd)


def test_a_cut_at_any_part_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    with Checkpoint.open(str(saved)) as restored:
        parts = restored.parts
    cuts = {0, 1, len(whole) - 1, len(whole) - 64}
    cuts |= {edge for part in parts for edge in (part.offset, part.offset + part.length // 2)}
    for cut in cuts:
        saved.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="cut off"):
            Checkpoint.open(str(saved))


def test_a_flipped_byte_in_any_part_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    with Checkpoint.open(str(saved)) as restored:
        parts = restored.parts
    positions = [part.offset + part.length // 2 for part in parts if part.length]
    positions += [len(whole) - 70, len(whole) - 20, len(whole) - 60]
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            Checkpoint.open(str(saved))


def test_another_format_is_refused_with_advice(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    struct.pack_into("<I", whole, len(whole) - 48, checkpoint.FORMAT_VERSION + 1)
    saved.write_bytes(whole)
    with pytest.raises(CheckpointError, match="restore it with the version that saved it"):
        Checkpoint.open(str(saved))


def test_missing_cpu_features_and_cores_are_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Checkpoint.open(str(saved)) as restored:
        restored.check_host()
        features = guest_machine.cpu_features()
        monkeypatch.setattr(guest_machine, "cpu_features", lambda: features[1:])
        with pytest.raises(CheckpointError, match=features[0]):
            restored.check_host()
        monkeypatch.setattr(guest_machine, "cpu_features", lambda: features)
        monkeypatch.setattr(guest_machine, "application_cores", lambda: 0)
        with pytest.raises(CheckpointError, match="cores"):
            restored.check_host()


def test_a_failed_save_leaves_nothing_and_an_old_file_alone(saved: Path) -> None:
    before = saved.read_bytes()
    with CheckpointWriter(str(saved), 1) as writer:
        os.pwrite(writer.memory_fds[0], b"x" * 5000, 0)  # and then nobody finishes it
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_save_replaces_the_old_file_as_a_whole(saved: Path) -> None:
    with Checkpoint.open(str(saved)) as old:
        write(saved, workers=1)
        assert old.states() == STATES
    assert os.listdir(saved.parent) == [saved.name]
    Checkpoint.open(str(saved)).close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no-such-folder"):
        CheckpointWriter(str(tmp_path / "no-such-folder" / "x"), 1)
    with pytest.raises(CheckpointError, match="cannot read"):
        Checkpoint.open(str(tmp_path / "missing"))


def test_a_specification_survives(spec: SandboxSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec
    with pytest.raises(CheckpointError):
        decode_spec(b"nonsense")
