"""What the measured programs work on, made anew for each run of the benchmark below /var/tmp, and gone with it.

Not below /tmp: a sandbox has a /tmp of its own.  Every system sees the same host files; the directory that a program
works in, which it writes to, is a new one for each round and system.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .processes import ENVIRONMENT

__all__ = ["PYTHON", "Fixtures"]

#: The interpreter that runs inside: Debian's, not the one that greenroom runs in.
PYTHON = "/usr/bin/python3"
_PROGRAMS = Path(__file__).resolve().parent / "programs"

#: 427 directories of 99 files: 42,700 entries, the size of a larger checkout.
_TREE_DIRECTORIES = 427
_TREE_FILES = 99
#: Files of the git repository and the archive: 40 directories of 25, 1 KiB to 4 KiB each.
_REPOSITORY_DIRECTORIES = 40
_REPOSITORY_FILES = 25
_C_FILES = 6
_INSERTS = 2000
#: pytest and what it imports; all of it is Python.
_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


class Fixtures:
    """Files to work on, each made when it is first asked for; use it as a context manager."""

    def __init__(self) -> None:
        """Make the directory that holds them."""
        #: Everything is below.
        self.root = Path(tempfile.mkdtemp(prefix="greenroom-bench-", dir="/var/tmp"))
        self._works = 0
        # A sandbox's user may be another one.
        self.root.chmod(0o755)

    def new_work(self) -> str:
        """Return a new empty directory for a program to work in."""
        self._works += 1
        path = self.root / f"work{self._works}"
        path.mkdir()
        return str(path)

    @functools.cached_property
    def guest(self) -> str:
        """The guest's agent, see programs/guest.c."""
        target = self.root / "guest"
        flags = ("-O2", "-Wall", "-Werror", "-pthread")
        subprocess.run(["gcc", *flags, "-o", target, _PROGRAMS / "guest.c"], check=True)
        return str(target)

    @functools.cached_property
    def tree(self) -> str:
        top = self.root / "tree"
        for directory in range(_TREE_DIRECTORIES):
            # Ten to a level, so that it is deep as well as wide.
            path = top.joinpath(*str(directory))
            path.mkdir(parents=True)
            for number in range(_TREE_FILES):
                os.close(os.open(path / f"file{number}", os.O_CREAT | os.O_WRONLY, 0o644))
        return str(top)

    @functools.cached_property
    def repository(self) -> str:
        top = self.root / "repository"
        for directory in range(_REPOSITORY_DIRECTORIES):
            path = top / f"package{directory}"
            path.mkdir(parents=True)
            for number in range(_REPOSITORY_FILES):
                text = f"# {directory} {number}\n" + "line = 'of a file'\n" * (50 + directory * number % 150)
                (path / f"module{number}.py").write_text(text, encoding="ascii")
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        for arguments in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "-m", "all")):
            subprocess.run(["git", *arguments], cwd=top, check=True, env=ENVIRONMENT)
        return str(top)

    @functools.cached_property
    def c_project(self) -> str:
        top = self.root / "project"
        top.mkdir()
        names = [f"part{number}" for number in range(_C_FILES)]
        for number, name in enumerate(names):
            lines = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>"]
            lines += [
                f'int {name}_{i}(int x) {{ return x * {i + number} + (int)strlen("{name}"); }}' for i in range(40)
            ]
            (top / f"{name}.c").write_text("\n".join(lines) + "\n", encoding="ascii")
        (top / "main.c").write_text(
            "".join(f"int {name}_1(int);\n" for name in names)
            + f"int main(void) {{ return {' + '.join(f'{name}_1(1)' for name in names)} == 0; }}\n",
            encoding="ascii",
        )
        objects = " ".join(f"{name}.o" for name in ("main", *names))
        rules = f"VPATH = {top}\nprogram: {objects}\n\t$(CC) -o $@ $^\n%.o: %.c\n\t$(CC) -O1 -c -o $@ $<\n"
        (top / "Makefile").write_text(rules, encoding="ascii")
        return str(top)

    @functools.cached_property
    def inserts(self) -> str:
        """Return a script for sqlite3: a table and an index, rows in transactions of 20."""
        lines = [
            "PRAGMA synchronous = OFF;",
            "DROP TABLE IF EXISTS t;",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name);",
        ]
        lines.append("CREATE INDEX names ON t (name);")
        for number in range(_INSERTS):
            if number % 20 == 0:
                lines.append("BEGIN;")
            lines.append(f"INSERT INTO t (name) VALUES ('name {number * 7919 % _INSERTS}');")  # noqa: S608  # a constant
            if number % 20 == 19:
                lines.append("COMMIT;")
        path = self.root / "inserts.sql"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        return str(path)

    @functools.cached_property
    def tests(self) -> str:
        """Return a directory with a small package, its tests, and pytest beside them in "site"."""
        top = self.root / "tests"
        site = top / "site"
        site.mkdir(parents=True)
        for name in _PYTEST:
            for file in importlib.metadata.files(name) or ():
                if file.parts[0] == ".." or "__pycache__" in file.parts:
                    continue
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
        subprocess.run([PYTHON, "-m", "compileall", "-q", site], check=True, env=ENVIRONMENT)
        for number in range(10):
            mark = "@pytest.mark.parametrize('n', range(10))"
            body = f"import pytest\n{mark}\ndef test_{number}(n):\n    assert n * n >= n\n"
            (top / f"test_{number}.py").write_text(body, encoding="ascii")
        return str(top)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Fixtures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
