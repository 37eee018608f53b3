"""Start a watchdog: `python -m paddock.watchdog`, settings as one JSON line on standard input."""

# ruff: noqa: E402
import gc
import sys

gc.disable()  # while it imports: all of that is here for good

from .process import main

gc.freeze()
gc.enable()
sys.exit(main())
