"""Start a watchdog: `python -m paddock.watchdog`, settings as one JSON line on standard input."""

import sys

from .process import main

sys.exit(main())
