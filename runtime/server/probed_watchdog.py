"""The watchdog with the probes of `base/probes.py` in it, for tests: by itself it may know nothing of this package."""

from __future__ import annotations

import sys

from ...watchdog.process import main
from ..base.probes import reach

if __name__ == "__main__":
    sys.exit(main(reach))
