"""Works through small tasks on however many GPUs its Ray cluster has, and says when that changes: `ray_elastic.py --seconds N`.

A task on a worker that is taken away is tried again by Ray on another one, so that a task must be safe to run twice.
"""

import argparse
import time

import ray


@ray.remote(num_gpus=1, max_retries=-1)
def work(number):
    time.sleep(1)
    return number


def gpus():
    return int(sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    end = time.monotonic() + parser.parse_args().seconds
    ray.init()
    seen, done, running, number = None, 0, [], 0
    while time.monotonic() < end:
        if gpus() != seen:
            seen = gpus()
            print(f"{seen} GPUs now; {done} tasks done", flush=True)
        while len(running) < max(seen, 1):
            running.append(work.remote(number))
            number += 1
        ready, running = ray.wait(running, timeout=0.5)
        done += len(ready)
    print(f"ok: {done} tasks", flush=True)


main()
