"""Runs spark-submit under the attempt's guard: `spark_driver.py READY EXECUTORS_DIR COUNT COMMAND…`.

Says in READY when COUNT executors have registered with the driver, and ends as spark-submit ends. Standard library only.
"""

import glob
import os
import subprocess
import sys
import time

POLL_S = 0.25
# What an executor's own log says once the driver knows it.
REGISTERED = b"Successfully registered with driver"


def say(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def registered(folder):
    count = 0
    for path in glob.glob(os.path.join(glob.escape(folder), "*", "*", "stderr")):
        with open(path, "rb") as file:
            # It comes among the first lines; a long log of a long run is not read to its end.
            count += REGISTERED in file.read(1 << 20)
    return count


def main():
    ready, folder, wanted, command = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
    submit = subprocess.Popen(command)
    said = None
    while submit.poll() is None:
        if said != "running":
            count = registered(folder)
            text = "running" if count >= wanted else f"{count} of {wanted} Spark executors registered"
            if text != said:
                said = text
                say(ready, text)
        time.sleep(POLL_S)
    code = submit.returncode
    # As a shell would: a signal's death is 128 and more.
    sys.exit(code if code >= 0 else 128 - code)


main()
