"""Messages that Timekeeper receives, and its replies."""

from __future__ import annotations

from .base import Done, Message, Mode, message

__all__ = ["AddClockReader", "ClockState", "FreezeClocks", "LoadClocks", "ReadClocks", "SaveClocks", "ThawClocks"]


@message(tag=0x701, receiver="timekeeper", mode=Mode.ASK, reply=Done)
class AddClockReader(Message):
    """kernel -> timekeeper, ask: tell *address* (a worker, mount_namespace) the parameters, now and at each change."""

    address: str


@message(tag=0x702, receiver="timekeeper", mode=Mode.ASK, reply=Done)
class FreezeClocks(Message):
    """kernel -> timekeeper, ask: a pause begins: monotonic time stands still."""


@message(tag=0x703, receiver="timekeeper", mode=Mode.ASK, reply=Done)
class ThawClocks(Message):
    """kernel -> timekeeper, ask: the pause ends: monotonic time goes on from where it stood."""


@message(tag=0x704, receiver="timekeeper", mode=Mode.REPLY)
class ClockState(Message):
    """timekeeper -> kernel, reply: guest times in ns, as of the reply (all that a save needs)."""

    monotonic_ns: int
    realtime_ns: int
    #: Guest realtime at which monotonic was 0.
    boot_realtime_ns: int
    #: Guest CLOCK_REALTIME minus the host's.
    realtime_offset_ns: int = 0


@message(tag=0x705, receiver="timekeeper", mode=Mode.ASK, reply=ClockState)
class ReadClocks(Message):
    """kernel or mount_namespace -> timekeeper, ask: the current guest times."""


@message(tag=0x706, receiver="timekeeper", mode=Mode.ASK, reply=ClockState)
class SaveClocks(Message):
    """kernel -> timekeeper, ask: the times to save; clocks must be frozen."""


@message(tag=0x707, receiver="timekeeper", mode=Mode.ASK, reply=Done)
class LoadClocks(Message):
    """kernel -> timekeeper, ask: continue from saved times: monotonic = saved + max(0, real time passed); frozen."""

    monotonic_ns: int
    realtime_ns: int
    boot_realtime_ns: int
    realtime_offset_ns: int = 0


@message(tag=0x708, receiver="timekeeper", mode=Mode.TELL)
class SetRealtime(Message):
    """thread_group -> timekeeper, tell: clock_settime(CLOCK_REALTIME), permission checked by the sender."""

    realtime_ns: int
