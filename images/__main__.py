"""`python -m images`: builds what changed and prints one line for each image: name, size, archive."""

import os
import sys

from cluster.errors import ClusterError
from cluster.layout import Cache
from images import builder


def main() -> int:
    """Exit code: 0, or 1 with one sentence and a hint on stderr."""
    try:
        for image in builder.ensure_all(Cache.from_environment(), named_base=os.environ.get("BASE_IMAGE", "")):
            print(f"{image.reference}\t{image.size_bytes / 1e6:.1f} MB\t{image.archive}", flush=True)
    except ClusterError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
