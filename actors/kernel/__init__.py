"""Kernel: a sandbox as a whole, between its supervisor and its other actors.

Linux counterpart: start_kernel, reboot and freezer; the reference is pkg/sentry/kernel/kernel.go of 2018.
"""
