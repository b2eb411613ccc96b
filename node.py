"""Run one node of a Quorate cluster: `python node.py --help`."""

import sys

from cluster.main import main

if __name__ == "__main__":
    sys.exit(main())
