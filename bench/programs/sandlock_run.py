"""Run a program under sandlock: ``python sandlock_run.py WRITABLE PROGRAM [ARGUMENT...]``.

sandlock comes without a command line. The host is readable; /tmp, devices and the directory WRITABLE can be written.
"""

from __future__ import annotations

import sys

from sandlock import Sandbox

sys.exit(Sandbox(fs_readable=["/"], fs_writable=["/tmp", "/dev", sys.argv[1]]).run_interactive(sys.argv[2:]))
