"""``python -m vilau`` is the command ``vilau``."""

import sys

from vilau.cli import main

if __name__ == "__main__":
    sys.exit(main())
