"""TODO lead."""
from __future__ import annotations
from typing import Any
from ..runtime.actor import Refused
def _no(*_: Any) -> Any:
    raise Refused("saving is not there yet")
save_group = load_group = begin = save_worker = load_worker = _no
