"""Makes `python -m seqssvae` the command `seqssvae`."""

import sys

from seqssvae.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
