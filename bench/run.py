"""Measure the gateways and write the results; `--help` lists the options."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program has only its own folder on the path

from bench.suite import main

if __name__ == "__main__":
    main()
