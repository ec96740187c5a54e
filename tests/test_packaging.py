"""What is installed is what the tree holds."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

from greenroom.actors.thread_group import dispatch
from greenroom.config.build import is_compiled

_ROOT = Path(__file__).parent.parent
#: Folders at the top that users do not install.
_NOT_INSTALLED = {"tests", "bench", "build", "dist"}


def test_package_list_matches_the_folders() -> None:
    """With package-dir at the root, setuptools cannot find them by itself."""
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=_ROOT, capture_output=True, check=True, text=True).stdout
    folders = {Path(name).parent for name in tracked.splitlines()}
    installed = {folder for folder in folders if not folder.parts or folder.parts[0] not in _NOT_INSTALLED}
    installed |= {parent for folder in installed for parent in folder.parents}
    assert sorted(settings["packages"]) == sorted(".".join(("greenroom", *folder.parts)) for folder in installed)


def test_data_of_packages_are_tracked() -> None:
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    tracked = subprocess.run(["git", "ls-files"], cwd=_ROOT, capture_output=True, check=True, text=True).stdout
    for package, names in settings["package-data"].items():
        folder = Path(*package.split(".")[1:])
        assert {str(folder / name) for name in names} <= set(tracked.splitlines())


def test_platform_is_no_package_of_its_own() -> None:
    """With an __init__.py, ``python -m`` anything from the root would import it in place of the standard library's."""
    assert not (_ROOT / "platform" / "__init__.py").exists()


def test_the_form_is_what_is_told() -> None:
    """With COMPILED=1 machine code is tested, and not the source beside it."""
    assert str(dispatch.__file__).endswith(".so") == is_compiled()
