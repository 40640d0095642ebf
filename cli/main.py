"""The `autotls` command: finds the subcommand, and turns errors into one sentence, a hint and an exit code.

Subcommands are imported when they are called: the Kubernetes client alone costs a second of CPU.
"""

import importlib
import os
import sys
from typing import Final

import click

from cli import output
from cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from mesh.errors import AutotlsError

# Name -> (module of cli.commands, first line of its help: shown without importing it).
_COMMANDS: Final = {
    "install": ("install", "Print the manifests that install autotls."),
    "uninstall": ("uninstall", "Print the manifests of an installation, for `kubectl delete -f -`."),
    "inject": ("inject", "Add the sidecar to the workloads in manifests."),
    "uninject": ("uninject", "Take the sidecar out of manifests again, byte for byte."),
    "check": ("check", "Find out what is wrong with autotls, or what would keep it from being installed."),
    "stat": ("stat", "Show how much traffic workloads received, and which share of it was mutual TLS."),
    "edges": ("edges", "Show who talks to whom, with which identities, and whether by mutual TLS."),
    "tap": ("tap", "Watch requests and connections of a workload as they end."),
    "identity": ("identity", "Compare the certificate that a pod serves now with the one issued."),
    "prove": ("prove", "Make one real connection from a pod to a Service and report each step."),
    "dashboard": ("dashboard", "Open the web page of the mesh."),
    "version": ("version", "Print the version of this command and of the control plane."),
    "completion": ("completion", "Print a completion script for bash, zsh or fish."),
}


class _Commands(click.Group):
    """A group that knows its commands' names and first lines, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"cli.commands.{_COMMANDS[cmd_name][0]}"), "command")  # noqa: B009

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success; 1 an error or a failed check, explained on stderr; 2 wrong usage; 130 interrupted.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Automatic mutual TLS for Kubernetes pods."""


def main() -> None:
    """The entry point of the installed script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of `autotls <arguments>`; whatever happens is told on stderr, never as a traceback."""
    debug = "--debug" in arguments
    if "_AUTOTLS_COMPLETE" in os.environ:
        # The shell's completion script asks: click answers on stdout and exits.
        cli.main(args=[], prog_name="autotls", complete_var="_AUTOTLS_COMPLETE")
    try:
        code = cli.main(args=arguments, prog_name="autotls", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        output.report("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `autotls install | head`: nobody reads on, which is no error of ours.
        sys.stderr.close()
        return EXIT_FAILED
    except Exception as error:
        if debug:
            raise
        _explain(error)
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> None:
    if isinstance(error, AutotlsError):
        output.error(error.message, error.hint)
    elif isinstance(error, click.ClickException):
        output.error(error.format_message(), "")
    else:
        text = " ".join(str(error).split())
        output.error(
            f"autotls failed in a way it should not: {type(error).__name__}: {text}",
            "run it again with --debug for the traceback, and please report it",
        )


if __name__ == "__main__":
    main()
