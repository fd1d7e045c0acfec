"""`python -m wavasr` is the command `wavasr`."""

import sys

from wavasr.cli import main

if __name__ == "__main__":
    sys.exit(main())
