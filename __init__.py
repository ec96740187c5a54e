"""greenroom: a Linux kernel in user space, in Python, that runs programs you do not trust."""

__version__ = "0.1.0"
