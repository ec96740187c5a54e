"""Every limit of greenroom, with its unit. Reaching one is the errno that Linux gives, or a clear error."""

from __future__ import annotations

#: Bytes of one message frame. A getdents or a process list is far below; a read of a /proc file is cut at this.
MAX_FRAME_BYTES = 16 << 20
#: Messages waiting in one process's ZeroMQ inbox before its senders block (ZeroMQ's high-water mark).
MAX_QUEUED_FRAMES = 100_000
#: ZeroMQ sockets of one process (the library's own limit): a supervisor has two for each sandbox.
MAX_ZMQ_SOCKETS = 65_535
#: Values of one kind of packed record (credentials) that a process knows without unpacking them again.
REMEMBERED_RECORDS = 1024
#: Times that a class of messages is packed or rebuilt before functions are compiled for it.
USES_BEFORE_COMPILED = 8
#: Frames that a process has sent to itself and handles after one callback, before its loop goes on.
FRAMES_PER_CALLBACK = 4096
#: Registers that carry system call arguments on every supported architecture.
ARGUMENT_COUNT = 6
#: Nanoseconds that the loop is asked to wait at most: epoll counts 31 bits of ms. Later ones are looked at again.
MAX_TIMER_NS = 86_400 * 1_000_000_000

# -- supervisor --------------------------------------------------------------------------------------------------------

#: Sandboxes that a supervisor keeps prepared. More than are asked for while one is being made do not pay, and each
#: takes about 10 MB.
MAX_STOCK = 4
#: Nanoseconds without a request after which prepared sandboxes are ended.
STOCK_IDLE_NS = 600 * 1_000_000_000

# -- mount namespace ---------------------------------------------------------------------------------------------

#: Anonymous host files (memfds) open at once for regular files in memory; at most half of RLIMIT_NOFILE's hard limit.
MAX_MEMFDS = 8192
#: Bytes of a closed file up to which it may be moved out of its memfd when there are too many of them.
MAX_PARKED_FILE_BYTES = 1 << 20
#: Host directories of a lower layer or a bind that are kept open, per file system.
MAX_HOST_DIRECTORIES = 512
#: Cached directory entries that can be looked up again (clean ones of an overlay's lower layer), per file system.
MAX_CACHED_DENTRIES = 200_000
#: Paths whose end is known without a walk, per namespace.
MAX_KNOWN_PATHS = 8192
#: Different names whose absence the worker may know of.
MAX_MISSING_NAMES = 8192
#: Paths that the worker may answer for by itself.
MAX_LEASED_PATHS = 16_384
#: Files and directories that it keeps open after the guest has closed them, and how many of these have a descriptor.
MAX_KEPT_FILES = 768
MAX_KEPT_DESCRIPTORS = 256
#: Bytes that a tmpfs or an overlay's upper layer holds when its mount does not say.
DEFAULT_FILE_SYSTEM_BYTES = 8 << 30
#: Bytes of it that a worker may write before it asks again.
SPACE_STEP_BYTES = 64 << 20
#: Inodes of one tmpfs or upper layer (ENOSPC).
MAX_INODES = 1_000_000
#: Handles that all workers of a sandbox hold (ENFILE).
MAX_HANDLES = 1_000_000
#: Mounts of a namespace (ENOSPC), as sysctl fs.mount-max.
MAX_MOUNTS = 100_000
#: Record locks and flocks of a sandbox (ENOLCK).
MAX_LOCKS = 100_000
#: Bytes of all extended attributes of one inode (ENOSPC).
MAX_XATTR_BYTES = 1 << 20
#: Seconds from 1970 to the last time that a file can have, in both directions: ns fit in 64 bits. The year 2262.
MAX_FILE_TIME_S = 9_223_372_035
# -- tasks and time ----------------------------------------------------------------------------------------------

#: Process and thread ids are below this (sysctl kernel.pid_max).
PID_MAX = 32768
#: Where process ids go on after they have wrapped (kernel/pid.c's RESERVED_PIDS).
RESERVED_PIDS = 300
#: Processes and threads, zombies included, that may exist at once (EAGAIN), as sysctl kernel.threads-max.
MAX_TASKS = 30_000
#: Process and thread ids that a worker is given in advance, and how few are left when it asks for more.
GRANTED_IDS = 16
FEW_IDS = 8
#: Signals to many that TaskSet remembers per process, for children whose fork crossed them.
REMEMBERED_BROADCASTS = 16
#: Messages that wait in TaskSet for one child that is being made; more are a bug.
MAX_HELD_MESSAGES = 10_000
#: Dead thread groups whose message numbering is kept for stragglers.
REMEMBERED_GROUPS = 64
#: Parked address spaces of programs that run often, per worker; programs that were run once and may get one.
MAX_TEMPLATES = 8
MAX_TEMPLATES_WANTED = 64
#: Programs that may have the same addresses, before new ones are chosen.
EXECS_PER_TEMPLATE = 64
#: Bytes of a program's file: a template keeps a file's pages for a while after it was deleted.
MAX_TEMPLATE_FILE_BYTES = 64 << 20
#: Frequency of the CPU clock ticker in Hz, as CONFIG_HZ.
CPU_TICK_HZ = 100

#: Resource limits that a new process has, (soft, hard) in each resource's own unit; None is unlimited.
GUEST_RLIMITS: dict[str, tuple[int | None, int | None]] = {
    "CPU": (None, None),  # seconds
    "FSIZE": (None, None),  # bytes
    "DATA": (None, None),  # bytes
    "STACK": (8 << 20, None),  # bytes
    "CORE": (0, None),  # bytes
    "RSS": (None, None),  # bytes
    "NPROC": (30_000, 30_000),  # processes
    "NOFILE": (1024, 1 << 20),  # descriptors
    "MEMLOCK": (8 << 20, 8 << 20),  # bytes
    "AS": (None, None),  # bytes
    "LOCKS": (None, None),  # locks
    "SIGPENDING": (30_000, 30_000),  # queued signals
    "MSGQUEUE": (819_200, 819_200),  # bytes
    "NICE": (0, 0),
    "RTPRIO": (0, 0),
    "RTTIME": (None, None),  # microseconds
}
#: Bytes of records that one trace block holds once unpacked. A block is written when it is a quarter full.
MAX_TRACE_BLOCK_BYTES = 64 << 20
#: Bytes of records after which a trace block is written.
TRACE_FLUSH_BYTES = 1 << 20

# -- memory ------------------------------------------------------------------------------------------------------

#: Mappings of one address space (ENOMEM), as sysctl vm.max_map_count.
MAX_MAP_COUNT = 65530
#: Parsed headers of executables that are kept.
MAX_CACHED_EXECUTABLES = 256
#: Times that a turn of the loop runs its queue before it looks at descriptors again.
READY_ROUNDS_PER_TURN = 8

# -- inotify: as /proc/sys/fs/inotify says ---------------------------------------------------------------------------

#: Instances of one worker, watches of a sandbox, and events that wait for one instance.
MAX_INOTIFY_INSTANCES = 128
MAX_INOTIFY_WATCHES = 65536
MAX_INOTIFY_EVENTS = 16384
