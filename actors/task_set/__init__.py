"""TaskSet: the process tree, wait status, job control and signals between processes.

Linux counterpart: tasklist_lock and what it guards (kernel/fork.c, exit.c, signal.c, sys.c, pid.c, tty_jobctrl.c).
"""
