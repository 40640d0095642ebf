"""`autotls completion`."""

import click
from click.shell_completion import get_completion_class

from cli import output
from cli.errors import CliError

_SHELLS = ("bash", "fish", "zsh")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
      source <(autotls completion bash)
      source <(autotls completion zsh)
      autotls completion fish | source
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CliError(f"no completion for {shell}", hint="one of " + ", ".join(_SHELLS))
    script = kind(context.find_root().command, {}, "autotls", "_AUTOTLS_COMPLETE").source()
    output.result(script + "\n")
