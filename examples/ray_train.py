"""Data-parallel training of a small model on Ray, checked by its loss.

Each worker makes its own part of a fixed data set and computes the gradient of a logistic regression on it; the driver
averages the gradients and takes the step. The data's true weights are known, so the loss that a right run reaches is
known too: the program ends with 1 if it is not reached, or if some worker never computed.

    python ray_train.py [--workers 2] [--gpus-per-worker 0] [--epochs 20]
"""

import argparse
import os
import sys
import time

import numpy as np
import ray

FEATURES = 32
ROWS = 20_000
BATCH = 2_000
LEARNING_RATE = 2.0
# The noise of the labels leaves a loss of about 0.2605; a model that learned nothing has ln 2 = 0.69.
LOSS_BOUND = 0.265


def true_weights():
    return np.random.default_rng(0).normal(size=FEATURES)


@ray.remote(num_cpus=1)
class Worker:
    """Holds one shard of the data."""

    def __init__(self, rank):
        rng = np.random.default_rng(1000 + rank)
        self.x = rng.normal(size=(ROWS, FEATURES))
        chance = 1 / (1 + np.exp(-self.x @ true_weights()))
        self.y = (rng.random(ROWS) < chance).astype(np.float64)
        self.rank = rank

    def where(self):
        context = ray.get_runtime_context()
        return {
            "rank": self.rank,
            "pid": os.getpid(),
            "node": context.get_node_id()[:8],
            "member": os.environ.get("TIDEWATER_MEMBER", "?"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }

    def gradient(self, weights, step):
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % ROWS
        x, y = self.x[rows], self.y[rows]
        chance = 1 / (1 + np.exp(-x @ weights))
        return x.T @ (chance - y) / len(rows)

    def loss(self, weights):
        z = self.x @ weights
        # log(1 + e^z) - y z, without overflow.
        return float(np.mean(np.logaddexp(0, z) - self.y * z))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus-per-worker", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    ray.init()
    began = time.monotonic()
    # SPREAD: one worker on each Ray node while there are nodes without one.
    actor = Worker.options(num_gpus=options.gpus_per_worker, scheduling_strategy="SPREAD")
    workers = [actor.remote(rank) for rank in range(options.workers)]
    places = ray.get([worker.where.remote() for worker in workers])
    for place in places:
        print("worker {rank}: pid {pid} on {member} (Ray node {node}), GPUs [{gpus}]".format(**place))

    weights = np.zeros(FEATURES)
    steps_per_epoch = ROWS // BATCH
    losses = []
    for epoch in range(options.epochs):
        for step in range(steps_per_epoch):
            gradients = ray.get([worker.gradient.remote(weights, step) for worker in workers])
            weights = weights - LEARNING_RATE * np.mean(gradients, axis=0)
        losses.append(float(np.mean(ray.get([worker.loss.remote(weights) for worker in workers]))))
        print(f"epoch {epoch + 1:2}: loss {losses[-1]:.4f}", flush=True)

    distinct = len({place["pid"] for place in places})
    print(f"{distinct} workers on {len({p['node'] for p in places})} Ray nodes, {time.monotonic() - began:.1f} s")
    ray.shutdown()
    if distinct != options.workers:
        sys.exit(f"only {distinct} of {options.workers} workers computed")
    if not losses[-1] < LOSS_BOUND:
        sys.exit(f"the loss is {losses[-1]:.4f}, not below {LOSS_BOUND}: the training went wrong")
    print(f"ok: loss {losses[-1]:.4f} is below {LOSS_BOUND}")


main()
