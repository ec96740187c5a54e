"""Timekeeper: what turns the host's clocks into the guest's.

Linux counterpart: kernel/time/timekeeping.c.
"""
