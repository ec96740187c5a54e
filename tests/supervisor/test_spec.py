"""Specifications say what is wrong with a value, and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from greenroom.config.spec import (
    BindMount,
    Command,
    SandboxSpec,
    default_cwd,
    limit_numbers,
    parse_bind,
    parse_user,
)
from greenroom.supervisor.errors import SpecError


def test_the_default_specification_is_valid() -> None:
    assert SandboxSpec().cwd == "/"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ".."),
        ("name", "a/b"),
        ("name", "x" * 49),
        ("hostname", ""),
        ("hostname", "-x"),
        ("platform", "kvm"),
        ("placement", "everywhere"),
        ("network", "host"),
        ("workers", 0),
        ("workers", 65),
        ("timeout_ns", -1),
        ("cwd", "tmp"),
        ("root", "tmp"),
        ("env", {"A=B": "c"}),
        ("env", {"A": "\0"}),
        ("limits", {"nonsense": 1}),
        ("limits", {"nofile": -1}),
    ],
)
def test_a_bad_value_is_refused_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(SpecError, match=field.removesuffix("_ns")) as caught:
        SandboxSpec(**{field: value})
    assert "it must be" in str(caught.value)


@pytest.mark.parametrize(("text", "read_only"), [("/a:/b", False), ("/a:/b:ro", True), ("/a:/b:rw", False)])
def test_binds_are_parsed(text: str, read_only: bool) -> None:
    assert parse_bind(text) == BindMount(source="/a", target="/b", read_only=read_only)


@pytest.mark.parametrize("text", ["", "/a", "/a:/b:no", "/a:/b:ro:ro", "a:/b", "/a:b", "/a:"])
def test_bad_binds_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_bind(text)


def test_users_are_numbers_or_names() -> None:
    assert parse_user("root") == (0, 0, (0,))
    assert parse_user("7") == (7, 7, (7,))
    assert parse_user("7:8") == (7, 8, (8,))
    assert parse_user("daemon")[0] == 1
    for bad in ("", "no such user", "1:", ":1", "1:x", "4294967295"):
        with pytest.raises(SpecError):
            parse_user(bad)


def test_limits_become_numbers_of_setrlimit() -> None:
    assert limit_numbers({"nofile": 5, "core": 0}) == {7: 5, 4: 0}


def test_a_command_needs_a_program() -> None:
    with pytest.raises(SpecError):
        Command(argv=(), envv=(), cwd="/", user="root", terminal=False, limits={})
    with pytest.raises(SpecError):
        Command(argv=(b"a\0b",), envv=(), cwd="/", user="root", terminal=False, limits={})


@pytest.mark.parametrize(
    ("cwd", "targets", "expected"),
    [
        ("/usr/lib", (), "/usr/lib"),
        ("/tmp/x", (), "/"),
        ("/tmp", (), "/tmp"),
        ("/tmpfoo", (), "/tmpfoo"),
        ("/tmp/x/y", ("/tmp/x",), "/tmp/x/y"),
        ("/proc/self", ("/tmp",), "/"),
    ],
)
def test_the_caller_s_directory_is_kept_where_the_sandbox_shows_it(
    cwd: str, targets: tuple[str, ...], expected: str
) -> None:
    assert default_cwd(tuple(BindMount(source="/a", target=target) for target in targets), cwd) == expected


def test_a_removed_directory_becomes_the_root() -> None:
    assert default_cwd((), None) == "/"
