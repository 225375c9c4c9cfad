"""Uses the GPU that this process sees, in a way that is known: `load.py MODE SECONDS [GIB]`.

MODE is `busy` (matrix products without a pause), `half` (the same, 50 ms on and 50 ms off), `narrow` (one thread block: one
multiprocessor works, the others do nothing), `idle` (memory held, no kernel), `see` (prints what is visible and ends) or `fault`
(writes to memory that it has freed, for which the driver ends it with an XID of the application's kind).
"""

import os
import sys
import time

import torch

mode, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
print(f"visible [{visible}] devices {torch.cuda.device_count()} share [{os.environ.get('TIDEWATER_GPU_SHARE', '')}]", flush=True)
if mode == "see":
    sys.exit(0)
held = torch.empty(int(float(sys.argv[3]) * 2**30) if len(sys.argv) > 3 else 2**20, dtype=torch.uint8, device="cuda")
if mode == "fault":
    size = 2**30
    freed = torch.empty(size, dtype=torch.uint8, device="cuda")
    # The same memory by its address: nothing keeps it.
    view = {"shape": (size,), "typestr": "|u1", "data": (freed.data_ptr(), False), "version": 3}
    dangling = torch.as_tensor(type("View", (), {"__cuda_array_interface__": view})(), device="cuda")
    del freed
    torch.cuda.empty_cache()
    dangling.fill_(1)
    torch.cuda.synchronize()
    sys.exit("nothing stopped the write")
side = 128 if mode == "narrow" else 8192
a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
if mode == "narrow":
    # One thread block that spins: `_sleep` is a kernel of a single thread.
    step = lambda: torch.cuda._sleep(20_000_000)
else:
    step = lambda: torch.matmul(a, a)
step()
torch.cuda.synchronize()
print("ready", flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    if mode == "idle":
        time.sleep(0.2)
        continue
    pause = time.monotonic() + 0.05
    while time.monotonic() < pause:
        step()
        torch.cuda.synchronize()
    if mode == "half":
        time.sleep(0.05)
print("done", flush=True)
