"""The notify platform: guests whose system calls arrive as seccomp user notifications, under ptrace for the rest."""
