"""The command line of a benchmark."""

import argparse


def options(doc: str | None, **defaults: float) -> argparse.Namespace:
    """What was given: an option for each of `defaults`, of its type. `--help` shows `doc`, the module's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default %(default)s")
    return parser.parse_args()
