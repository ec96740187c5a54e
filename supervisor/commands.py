"""The commands: ``greenroom run``, and the verbs for sandboxes that run.

Only what a command needs is imported, and when it is needed: ``greenroom run -- /bin/true`` should take no longer to
start than it must.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..config.build import build_name

if TYPE_CHECKING:
    from ..config.spec import Command, SandboxSpec
    from .cli import Caller
    from .surroundings import Surroundings

__all__ = ["cli", "read_run"]


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


_platform_option = click.option(
    "--platform",
    default="auto",
    show_default=True,
    envvar="GREENROOM_PLATFORM",
    show_envvar=True,
    help="How system calls are caught: notify, ptrace, or auto, the faster that the host allows.",
)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(build_name(), prog_name="greenroom")
def cli() -> None:
    """Run programs that you do not trust against a Linux kernel in user space."""


@cli.command(context_settings={"allow_interspersed_args": False})
@_platform_option
@click.option("--placement", default="colocated", show_default=True, help="colocated or split.")
@click.option("--cwd", default=None, metavar="DIR", help="Working directory; the current one where the sandbox has it.")
@click.option("--env", "-e", multiple=True, metavar="K=V", help="Set a variable, or with K alone unset it.")
@click.option("--bind", "-v", multiple=True, metavar="SRC:DST[:ro]", help="Show a host directory in the sandbox.")
@click.option("--timeout", type=float, default=0.0, metavar="S", help="Kill it after S seconds; exit status 124.")
@click.option("--name", default="", metavar="ID", help="Name for the other commands; one is made up otherwise.")
@click.option("--hostname", default="greenroom", show_default=True, metavar="H")
@click.option("--user", default="root", show_default=True, metavar="U", help="User's name, UID or UID:GID.")
@click.option("--log-json", default="", metavar="FILE", help="Append the log to FILE as JSON lines.")
@click.option(
    "--log-level", default="info", show_default=True, help="debug: with every system call; info, warning, error."
)
@click.option("--trace", default="", metavar="FILE", help="Record all messages and host answers in FILE.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(caller: Caller, /, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in a new sandbox.

    Standard input, output and error are the command's, the environment is inherited, and so is the exit status: 0 to
    255 as the command returned it, 128 + N when it died by signal N, 124 after --timeout, 125 when greenroom itself
    failed, 126 when the command cannot be executed, 127 when it was not found.
    """
    spec, program = _plan(caller.surroundings(), command, options)
    from .foreground import Foreground

    return Foreground(caller.closed, caller.take_prepared()).run(spec, program)


def read_run(arguments: list[str], around: Surroundings) -> tuple[SandboxSpec, Command]:
    """Return what ``greenroom`` *arguments* (``run`` is the first) mean in surroundings that need not be ours.

    click.ClickException, SpecError for a mistake in them.
    """
    from ..config.spec import PLATFORM_VARIABLE, PLATFORMS

    context = run.make_context("run", arguments[1:])
    command = context.params.pop("command")
    if context.get_parameter_source("platform") is not click.core.ParameterSource.COMMANDLINE:
        # click has looked into our environment for it.
        context.params["platform"] = around.environment.get(PLATFORM_VARIABLE) or PLATFORMS[0]
    return _plan(around, command, context.params)


def _plan(around: Surroundings, argv: tuple[str, ...], options: dict[str, Any]) -> tuple[SandboxSpec, Command]:
    spec = _spec_of(options, around)
    return spec, _command_of(argv, spec, around)


def _spec_of(options: dict[str, Any], around: Surroundings) -> SandboxSpec:
    from ..config.spec import SandboxSpec, default_cwd, parse_bind

    mounts = tuple(parse_bind(text) for text in options["bind"])
    return SandboxSpec(
        name=options["name"],
        hostname=options["hostname"],
        platform=options["platform"],
        placement=options["placement"],
        mounts=mounts,
        cwd=default_cwd(mounts, around.directory) if options["cwd"] is None else options["cwd"],
        env=_environment(options["env"], around.environment),
        user=options["user"],
        timeout_ns=int(options["timeout"] * 1e9),
        trace=around.path(options["trace"]) if options["trace"] else "",
        log_json=around.path(options["log_json"]) if options["log_json"] else "",
        log_level=options["log_level"],
    )


def _environment(changes: tuple[str, ...], inherited: dict[str, str]) -> dict[str, str]:
    """Return the caller's environment with *changes*: K=V sets, K alone unsets."""
    env = dict(inherited)
    for change in changes:
        key, equals, value = change.partition("=")
        if equals:
            env[key] = value
        else:
            env.pop(key, None)
    return env


def _command_of(argv: tuple[str, ...], spec: SandboxSpec, around: Surroundings) -> Command:
    from ..config.spec import Command, parse_user

    parse_user(spec.user)  # a mistake is the caller's, to be told before anything starts
    return Command(
        argv=tuple(os.fsencode(argument) for argument in argv),
        envv=tuple(os.fsencode(f"{key}={value}") for key, value in spec.env.items()),
        cwd=spec.cwd,
        user=spec.user,
        terminal=around.terminal,
        limits=spec.limits,
    )


@cli.command()
@click.pass_obj
def serve(caller: Caller) -> int:
    """Be the supervisor of every `greenroom run` of yours, until SIGTERM or Ctrl-C.

    It keeps some sandboxes prepared, so that programs start in a tenth of the time. Environment, directory and streams
    are still those of each `run`; user, limits, priority and CPUs of the host are this process's.
    """
    from .service import serve_user

    return serve_user(caller.take_prepared())


@cli.command()
def ps() -> None:
    """List the running sandboxes."""
    from .sandbox import Sandbox

    rows: list[tuple[str, ...]] = [("ID", "STATE", "PLATFORM", "CREATED", "SUPERVISOR", "COMMAND")]
    for info in Sandbox.list():
        created = info.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        rows.append((info.id, info.state, info.platform, created, str(info.supervisor_pid), info.command))
    _print_table(rows)


@cli.command()
@click.argument("sandbox", metavar="ID")
def top(sandbox: str) -> None:
    """List the processes in sandbox ID."""
    from .sandbox import Sandbox

    rows: list[tuple[str, ...]] = [("PID", "PPID", "PGID", "SID", "STATE", "THREADS", "COMMAND")]
    for row in Sandbox.get(sandbox).ps():
        numbers = (str(number) for number in (row.pid, row.ppid, row.pgid, row.sid))
        rows.append((*numbers, row.state, str(row.threads), row.command))
    _print_table(rows)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@cli.command()
@click.argument("sandbox", metavar="ID")
def pause(sandbox: str) -> None:
    """Stop every program of sandbox ID, and its clocks. Pauses nest."""
    from .sandbox import Sandbox

    Sandbox.get(sandbox).pause()


@cli.command()
@click.argument("sandbox", metavar="ID")
def resume(sandbox: str) -> None:
    """Undo one pause of sandbox ID."""
    from .sandbox import Sandbox

    Sandbox.get(sandbox).resume()


@cli.command()
@click.argument("sandbox", metavar="ID")
@click.argument("signal", required=False, metavar="[SIGNAL]")
def kill(sandbox: str, signal: str | None) -> None:
    """End sandbox ID; or send its first program SIGNAL (a name such as TERM, or a number)."""
    from .sandbox import Sandbox

    found = Sandbox.get(sandbox)
    if signal is None:
        found.kill()
    else:
        found.send_signal(_signal_number(signal))


def _signal_number(text: str) -> int:
    import signal

    name = text.upper()
    if name.isdecimal():
        return int(name)
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise click.BadParameter(f"there is no signal {text!r}", param_hint="SIGNAL") from None


@cli.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal of its own, joined to yours.")
@click.option("--cwd", default=None, metavar="DIR", help="Working directory; the sandbox's own otherwise.")
@click.option("--env", "-e", multiple=True, metavar="K=V", help="Set a variable.")
@click.option("--user", default=None, metavar="U", help="User's name, UID or UID:GID.")
@click.argument("sandbox", metavar="ID")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(caller: Caller, /, sandbox: str, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in sandbox ID; streams, signals and exit status as with run."""
    from .attached import run_attached, run_in_terminal
    from .sandbox import Sandbox

    argv = command[1:] if command[0] == "--" else command
    env = dict(change.partition("=")[::2] for change in options["env"])
    chosen = {"env": env, "cwd": options["cwd"], "user": options["user"]}
    found = Sandbox.get(sandbox)
    if not options["tty"]:
        return run_attached(found, argv, caller.closed, **chosen)
    if not os.isatty(0):
        raise click.UsageError("-t joins a terminal, and standard input is none")
    return run_in_terminal(found, argv, **chosen)


@cli.command()
@click.argument("sandbox", metavar="ID")
def wait(sandbox: str) -> int:
    """Wait until sandbox ID has ended; exit with the status of its first program."""
    from .sandbox import Sandbox
    from .session import shell_status

    return shell_status(Sandbox.get(sandbox).wait())


@cli.command()
@click.option("--leave-running", is_flag=True, help="Let the sandbox go on.")
@click.argument("sandbox", metavar="ID")
@click.argument("file", type=click.Path(dir_okay=False))
def save(sandbox: str, file: str, *, leave_running: bool) -> None:
    """Save sandbox ID to FILE, which is replaced as a whole when it exists, and end the sandbox."""
    from .sandbox import Sandbox

    Sandbox.get(sandbox).save(file, leave_running=leave_running)


@cli.command()
@click.option(
    "--name", default="", metavar="ID", help="Its name; the saved one otherwise, or a new one while that is in use."
)
@_platform_option
@click.argument("file", type=click.Path(dir_okay=False))
@click.pass_obj
def restore(caller: Caller, /, file: str, name: str, platform: str) -> int:
    """Go on with the sandbox saved in FILE; ends as run does."""
    from .foreground import Foreground

    return Foreground(caller.closed, caller.take_prepared()).restore(os.path.abspath(file), name, platform)


@cli.group(cls=_Verbs)
def trace() -> None:
    """Look at traces that `run --trace FILE` has recorded."""


@trace.command("show")
@click.argument("file", type=click.File("rb"))
def trace_show(file: Any) -> None:
    """Print every record of FILE."""
    from .traces import show

    show(file, click.echo)


@trace.command("replay")
@click.argument("file", type=click.File("rb"))
def trace_replay(file: Any) -> int:
    """Feed FILE to the actors, with no host and no program: they must do the same again. Exit status 1 if not."""
    from .traces import replay

    return replay(file, click.echo)


@cli.command()
def syscalls() -> None:
    """Print the system calls that there are, and what is missing of them."""
    from ..actors.thread_group import families
    from ..actors.thread_group.table import TABLE

    families.load()
    rows: list[tuple[str, ...]] = [("NUMBER", "NAME", "SUPPORT", "NOTE")]
    rows += [(str(e.number), e.name, e.support.value, e.note) for _, e in sorted(TABLE.items())]
    _print_table(rows)
