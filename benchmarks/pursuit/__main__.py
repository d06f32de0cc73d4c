"""``python -m benchmarks.pursuit``: run the comparison."""

import sys

from benchmarks.pursuit.run import main

sys.exit(main())
