"""A grouped sum on Spark whose answer is known, computed on every executor.

Makes the numbers 0 to N-1, sums them and their squares by their remainder, and compares each group with the closed form.
Ends with 1 if one sum is wrong, or if fewer executors than expected took part.

    spark-submit spark_sum.py [--rows 500000] [--groups 10] [--executors 0]
"""

import argparse
import os
import sys
import time

from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql import functions as f


def expected(rows, groups, group):
    """Sum of x and of x*x over x = group + groups*k below rows."""
    n = (rows - group + groups - 1) // groups
    k1 = n * (n - 1) // 2
    k2 = (n - 1) * n * (2 * n - 1) // 6
    return n * group + groups * k1, n * group * group + 2 * group * groups * k1 + groups * groups * k2


def executor_of(_rows):
    # Slow enough that one quick executor does not take every task.
    time.sleep(0.3)
    yield os.environ.get("SPARK_EXECUTOR_DIRS", "?"), TaskContext.get().partitionId()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--executors", type=int, default=0, help="how many must take part")
    options = parser.parse_args()

    spark = SparkSession.builder.appName("spark-sum").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    began = time.monotonic()
    numbers = spark.range(options.rows).withColumn("group", f.col("id") % options.groups)
    exact = f.col("id").cast("decimal(38,0)")
    sums = numbers.groupBy("group").agg(f.sum(exact).alias("sum"), f.sum(exact * exact).alias("squares"))
    wrong = 0
    for row in sorted(sums.collect()):
        got, want = (int(row["sum"]), int(row["squares"])), expected(options.rows, options.groups, row["group"])
        wrong += got != want
        print(f"group {row['group']}: sum {got[0]}, squares {got[1]}: {'ok' if got == want else f'WRONG, not {want}'}")

    tasks = spark.sparkContext.parallelize(range(16), 8).mapPartitions(executor_of).collect()
    executors = {executor for executor, _ in tasks}
    print(f"{options.rows} rows, {len(executors)} executors, {time.monotonic() - began:.1f} s")
    spark.stop()
    if wrong:
        sys.exit(f"{wrong} groups are wrong")
    if len(executors) < options.executors:
        sys.exit(f"only {len(executors)} of {options.executors} executors took part")
    print("ok: every sum is right")


main()
