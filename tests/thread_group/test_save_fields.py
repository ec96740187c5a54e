"""Whatever a process, a thread or its memory remembers is saved, or stands here with the reason why not.

A new attribute makes a test fail until somebody has decided which of the two it is.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest
from greenroom.actors.thread_group import memory, save_group
from greenroom.actors.thread_group.actor import ThreadGroup
from greenroom.actors.thread_group.memory import MemoryManager
from greenroom.actors.thread_group.plain import pack, unpack
from greenroom.actors.thread_group.ranges import Ranges
from greenroom.actors.thread_group.task import Task

#: Of a task: saved under other names, made anew, or without meaning while it is stopped.
_TASK_OTHERS = {
    *("group", "worker", "memory", "host", "tid", "answer", "pending", "scheduling", "state", "held"),
    *("block", "timer"),  # a parked call is called again
    *("interrupted", "petition_interrupted"),  # set only while a handler runs, or with an answer on its way
    "work",  # always set by a load
    "file_credentials",  # made anew from the process's
}
_GROUP_OTHERS = {
    *("group", "worker", "tasks", "memory", "files", "fs", "credentials", "limits", "signals", "timers", "times"),
    *("stop_epoch", "_stop_promise", "signals_heard"),  # the load's
}
_MEMORY_OTHERS = {
    *("vmas", "executable", "future_flags", "max_rss_kib", "space", "_users", "_hit", "_write_hit"),
    "natural_base",  # of this host
    *("forked_rss_kib", "recent_rss"),  # spare a look; without them there is one
}


def _assigned(cls: type) -> set[str]:
    """Return the attributes that a constructor sets."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    targets = [
        target
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {t.attr for t in targets if isinstance(t, ast.Attribute) and ast.unparse(t.value) == "self"}


def test_every_field_of_a_task_is_accounted_for() -> None:
    assert set(Task.__slots__) == {*save_group._TASK_FIELDS, *_TASK_OTHERS}


def test_every_field_of_a_group_is_accounted_for() -> None:
    assert _assigned(ThreadGroup) == {*save_group._GROUP_FIELDS, *save_group._GROUP_MORE, *_GROUP_OTHERS}


def test_every_field_of_a_memory_is_accounted_for() -> None:
    assert _assigned(MemoryManager) | {"vmas", "space", "_hit", "_write_hit"} == {*memory._INHERITED, *_MEMORY_OTHERS}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, (2, [3, (4,)]), {"a": (b"x", "y")}],
        {(1, 2): (), 3: [(1 << 64) - 1, -(1 << 63)]},
        "name\udcff",
    ],
)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    assert repr(unpack(pack(value))) == repr(value)


def test_what_is_not_plain_is_no_state() -> None:
    with pytest.raises(TypeError):
        pack({"a": object()})


def test_damaged_plain_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"incomplete|Unpack"):
        unpack(pack([1, (2, 3)])[:-1])


def test_ranges_join_and_are_cut() -> None:
    ranges = Ranges()
    ranges.add(10, 20)
    ranges.add(30, 40)
    ranges.add(20, 25)
    assert ranges.within(0, 100) == [(10, 25), (30, 40)]
    ranges.cut(15, 35)
    assert ranges.within(12, 38) == [(12, 15), (35, 38)]
    copy = ranges.copy()
    ranges.cut(0, 100)
    assert not ranges
    assert copy.within(0, 100) == [(10, 15), (35, 40)]
