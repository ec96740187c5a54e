"""``python -m greenroom``: the command line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from greenroom.supervisor.cli import main

    sys.exit(main())
