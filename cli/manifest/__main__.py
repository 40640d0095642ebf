"""`python -m cli.manifest [HELM]`: renders the manifests that ship with autotls, for machines without helm."""

import sys
from pathlib import Path

from cli.chart import MODES, NAMESPACE_MARK, Wanted, find_helm, marked_sets, render_by_helm
from cli.errors import CliError


def main() -> int:
    helm = sys.argv[1] if len(sys.argv) > 1 else find_helm()
    if helm is None:
        print("helm is needed to render the manifests; give its path", file=sys.stderr)
        return 1
    try:
        for mode in MODES:
            text = render_by_helm(Wanted(NAMESPACE_MARK, tuple(marked_sets(mode))), helm)
            (Path(__file__).parent / f"{mode}.yaml").write_text(text, encoding="utf-8")
    except CliError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
