"""The command line: ``greenroom run``, and the verbs for sandboxes that run.

Only what a command needs is imported, and when it is needed: ``greenroom run -- /bin/true`` should take no longer to start
than it must.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .errors import GreenroomError
from .streams import fill_closed_streams

if TYPE_CHECKING:
    from ..config.spec import Command, SandboxSpec

__all__ = ["main"]

STATUS_FAILED = 125


class _Verbs(click.Group):
    """A group that knows what a person meant by a misspelt command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            hint = f" Did you mean '{near[0]}'?" if near else f" There are: {', '.join(self.list_commands(ctx))}."
            ctx.fail(f"There is no command '{name}'.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="greenroom")
def cli() -> None:
    """Run programs that you do not trust against a Linux kernel in user space."""


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("--platform", default="ptrace", show_default=True, help="How system calls are caught.")
@click.option("--placement", default="colocated", show_default=True, help="One process per sandbox, or split: kernel and worker apart.")
@click.option("--cwd", default=None, metavar="DIR", help="Working directory; the current one where the sandbox has it.")
@click.option("--env", "-e", multiple=True, metavar="K=V", help="Set a variable, or with K alone unset it.")
@click.option("--bind", "-v", multiple=True, metavar="SRC:DST[:ro]", help="Show a host directory in the sandbox.")
@click.option("--timeout", type=float, default=0.0, metavar="S", help="Kill it after S seconds; exit status 124.")
@click.option("--name", default="", metavar="ID", help="Name for the other commands; one is made up otherwise.")
@click.option("--hostname", default="greenroom", show_default=True, metavar="H")
@click.option("--user", default="root", show_default=True, metavar="U", help="User's name, UID or UID:GID.")
@click.option("--log-json", default="", metavar="FILE", help="Append the log to FILE as JSON lines.")
@click.option("--trace", default="", metavar="FILE", help="Record all messages and host answers in FILE.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(closed: frozenset[int], /, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in a new sandbox.

    Standard input, output and error are the command's, the environment is inherited, and so is the exit status: 0 to
    255 as the command returned it, 128 + N when it died by signal N, 124 after --timeout, 125 when greenroom itself
    failed, 126 when the command cannot be executed, 127 when it was not found.
    """
    spec = _spec_of(options)
    program = _command_of(command, spec, closed)
    from .foreground import Foreground

    return Foreground(closed).run(spec, program)


def _spec_of(options: dict[str, Any]) -> SandboxSpec:
    from ..config.spec import SandboxSpec, default_cwd, parse_bind

    mounts = tuple(parse_bind(text) for text in options["bind"])
    return SandboxSpec(
        name=options["name"],
        hostname=options["hostname"],
        platform=options["platform"],
        placement=options["placement"],
        mounts=mounts,
        cwd=default_cwd(mounts) if options["cwd"] is None else options["cwd"],
        env=_environment(options["env"]),
        user=options["user"],
        timeout_ns=int(options["timeout"] * 1e9),
        trace=os.path.abspath(options["trace"]) if options["trace"] else "",
        log_json=os.path.abspath(options["log_json"]) if options["log_json"] else "",
    )


def _environment(changes: tuple[str, ...]) -> dict[str, str]:
    """Return the caller's environment with *changes*: K=V sets, K alone unsets."""
    env = dict(os.environ)
    for change in changes:
        key, equals, value = change.partition("=")
        if equals:
            env[key] = value
        else:
            env.pop(key, None)
    return env


def _command_of(argv: tuple[str, ...], spec: SandboxSpec, closed: frozenset[int]) -> Command:
    from ..config.spec import Command

    return Command(
        argv=tuple(os.fsencode(argument) for argument in argv),
        envv=tuple(os.fsencode(f"{key}={value}") for key, value in spec.env.items()),
        cwd=spec.cwd,
        user=spec.user,
        terminal=0 not in closed and os.isatty(0),
        limits=spec.limits,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    closed = fill_closed_streams()
    try:
        result = cli.main(arguments, prog_name="greenroom", standalone_mode=False, obj=closed)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except (GreenroomError, OSError) as error:
        sys.stderr.write(f"greenroom: {error}\n")
        return STATUS_FAILED
    return result if isinstance(result, int) else 0
