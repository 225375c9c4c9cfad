"""Holds what it was given until it is ended, or for SECONDS: `python3 hold.py [SECONDS]`."""

import os
import sys
import time

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")
print(f"holding GPUs [{os.environ.get('CUDA_VISIBLE_DEVICES', '')}] on {os.environ.get('TIDEWATER_NODE', '?')}")
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    time.sleep(min(1, max(0, deadline - time.monotonic())))
