"""The ptrace platform: guests as tracees whose system calls the host never runs."""
