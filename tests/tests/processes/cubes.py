"""Sums cubes on a Ray cluster once all of it is there, and says on how many nodes and as whose work."""

import os
import time

import ray

NODES = 3


@ray.remote
def cube(number):
    return number**3


ray.init()
until = time.monotonic() + 60
while len(ray.nodes()) < NODES and time.monotonic() < until:
    time.sleep(0.2)
cubes = ray.get([cube.remote(number) for number in range(20)])
print(f"CUBES {sum(cubes)} NODES {len(ray.nodes())} OF {os.environ.get('TIDEWATER_WORKLOAD')}")
