"""`autotls uninject`."""

import click

from cli import output, sources
from cli.commands.inject import show
from cli.injection import uninject_text


@click.command("uninject")
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR|-...")
@click.option("-R", "--recursive", is_flag=True, help="Look into folders inside DIR as well.")
def command(files: tuple[str, ...], recursive: bool) -> None:
    """Take out of manifests what `autotls inject` put in: the text is what it was before, byte for byte.

    \b
      autotls uninject app.yml | kubectl apply -f -
    """
    read = sources.read_sources(files, recursive=recursive)
    results = [(source, *uninject_text(source.text, origin=source.origin)) for source in read]
    show([(source, report) for source, _, reports in results for report in reports])
    output.result(sources.join([text for _, text, _ in results]))
