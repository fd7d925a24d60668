"""The peak memory of a call, by torch's own books. Imports torch."""

import json
import os
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(call, device="cpu"):
    """The most bytes that call() holds at any moment in torch tensors that it made: temporary ones, what autograd keeps, and
    results.

    On the CPU torch.profiler records every block that torch's allocator gives out and takes back, at its full size, whether
    the system then finds it in the heap or maps new pages; that call() releases blocks from before counts for nothing. Not
    seen are Python's objects, NumPy's arrays and the C core's scratch, some KiB of stack a thread. On other devices the
    caching allocator's own statistics tell, in its units of 512 bytes.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler announces its start and end on stderr
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
            call()
        profiler.export_chrome_trace(path)
        with open(path, encoding="utf-8") as file:
            events = [event for event in json.load(file)["traceEvents"] if event["name"] == "[memory]"]
    held, peak = {}, 0
    for event in sorted(events, key=lambda event: event["ts"]):
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            held[address] = size
            peak = max(peak, sum(held.values()))
        else:
            held.pop(address, None)
    return peak
