"""The message catalogue, its codec, the ordering table and the trace format.

Every module named after an actor (``kernel``, ``task_set``, ...) holds the messages which that actor *receives*,
and the replies that it gives.
"""
