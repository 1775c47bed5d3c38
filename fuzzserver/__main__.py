"""``python -m fuzzserver``."""

import sys

from fuzzserver.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
