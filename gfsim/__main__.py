"""``python -m gfsim``."""

import sys

from gfsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
