"""The tests of a second device run in a process of their own: they register it for good, and torch counts devices at
the first backward pass of a process.
"""

from __future__ import annotations

import sys

SUITE = "test_second_device.py"

collect_ignore = [] if any(SUITE in argument for argument in sys.argv) else [SUITE]
