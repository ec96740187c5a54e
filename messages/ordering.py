"""Who may ask whom: the order that replaces locks.

``ask`` goes only down this order, so no cycle of waiting can exist; upwards and between equals only ``tell``.
The table is the one place that says so: the runtime refuses any other ask, and a test proves the table acyclic.
"""

from __future__ import annotations

import functools

__all__ = ["ALLOWED_ASKS", "RANKS", "WrongAsk", "check_ask", "kind_of"]

#: Actor kinds from the top of the order to its bottom. A client stands above every actor; it asks the Supervisor alone.
RANKS: tuple[str, ...] = (
    "client",
    "supervisor",
    "kernel",
    "task_set",
    "worker",
    "thread_group",
    "mount_namespace",
    "timekeeper",
)

#: The asks that exist: asker kind -> kinds that it may ask.
ALLOWED_ASKS: dict[str, frozenset[str]] = {
    "client": frozenset({"supervisor"}),
    "supervisor": frozenset({"kernel"}),
    "kernel": frozenset({"task_set", "worker", "mount_namespace", "timekeeper"}),
    "task_set": frozenset({"worker", "thread_group"}),
    "worker": frozenset({"thread_group", "mount_namespace"}),
    "thread_group": frozenset({"mount_namespace"}),
    "mount_namespace": frozenset({"timekeeper"}),
    "timekeeper": frozenset(),
}


class WrongAsk(RuntimeError):
    """An actor tried to ask someone whom the order does not allow it to wait for. Always our bug."""


def kind_of(address: str) -> str:
    """Return the actor kind of an address: ``thread_group:7`` -> ``thread_group``."""
    return address.partition(":")[0]


@functools.lru_cache(maxsize=4096)
def check_ask(asker: str, receiver: str) -> None:
    """Raise :class:`WrongAsk` unless the actor *asker* may ask the actor *receiver* (addresses)."""
    if kind_of(receiver) not in ALLOWED_ASKS.get(kind_of(asker), frozenset()):
        raise WrongAsk(f"{asker} may not ask {receiver}: asks go down the order {' > '.join(RANKS)}")
