"""A Spark application whose answer is known: the sum of the squares below a number, and who took part."""

import sys
import time

from pyspark.sql import SparkSession

count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
executors = int(sys.argv[2]) if len(sys.argv) > 2 else 1
session = SparkSession.builder.appName("squares").getOrCreate()
context = session.sparkContext


def registered():
    # The driver is among them.
    return context._jsc.sc().getExecutorMemoryStatus().size() - 1


until = time.monotonic() + 60
while registered() < executors and time.monotonic() < until:
    time.sleep(0.1)
total = context.parallelize(range(count), 8).map(lambda number: number * number).sum()
print("SUM", total, "EXECUTORS", registered(), flush=True)
session.stop()
