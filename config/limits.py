"""Every limit of greenroom, with its unit. Reaching one is the errno that Linux gives, or a clear error."""

from __future__ import annotations

#: Bytes of one message frame. A getdents or a process list is far below; a read of a /proc file is cut at this.
MAX_FRAME_BYTES = 16 << 20
#: Messages waiting in one process's ZeroMQ inbox before its senders block (ZeroMQ's high-water mark).
MAX_QUEUED_FRAMES = 100_000
