"""Checks what only a real GPU can show: `python3 tests/gpu/check.py BIN [PART...]`, BIN being the folder with `tidewater`; PARTs are
readings, cost, jobs, faults, outsiders and idlers, and all of them where none is named (4 minutes).

The tests' fake NVML library answers what one H100 answered once. This holds the node role and `tidewater dev` to a driver
that is there: with known loads running, readings must say so, jobs must see the GPUs that they were given and no others, and what
uses a GPU from outside must be noticed. It needs an NVIDIA GPU, `nvidia-smi`, and a Python with PyTorch; it starts processes of its
own only. It prints a line for each check, a JSON object as its last line, and ends with code 1 if a check failed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.argv[1]).resolve()
LOAD = Path(__file__).with_name("load.py").resolve()
FLEET = '[[cluster]]\nname = "here"\nregion = "lab"\nnodes = [{ name = "spare", count = 1, cpu = 1, memory = "1Gi" }]\n'
checks, measured = [], {}


def check(name, passed, seen):
    checks.append((name, bool(passed)))
    print(f"{'ok    ' if passed else 'FAILED'} {name}: {seen}", flush=True)


def smi(fields):
    out = subprocess.check_output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], text=True)
    return [field.strip() for field in out.splitlines()[0].split(",")]


def once():
    return json.loads(subprocess.check_output([BIN / "tidewater", "node", "--once", "-o", "json"], text=True))


class Load:
    """A load of its own beside Tidewater, from `ready` until the block ends."""

    def __init__(self, mode, gib=0.1):
        self.command = [sys.executable, LOAD, mode, "600", str(gib)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready"):
                break
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def readings():
    """One device, read while nothing, something known, or next to nothing runs."""
    name, uuid, total = smi("name,uuid,memory.total")
    device = once()["devices"][0]
    measured["gpu"], measured["sku"] = name, device["sku"]
    check("model", device["sku"] and device["sku"].split("-")[0] in name, f"{device['sku']} of {name}")
    check("uuid", device["uuid"] == uuid, "as nvidia-smi says")
    check("memory", device["memoryTotalMib"] == int(total), f"{device['memoryTotalMib']} of {total} MiB")
    check("health", device["health"]["state"] == "ok", device["health"])
    expected = {"idle": (0, 2), "narrow": (0, 5), "half": (25, 75), "busy": (85, 100)}
    for mode, (low, high) in expected.items():
        with Load(mode):
            device = once()["devices"][0]
            said = int(smi("utilization.gpu")[0])
        activity = device["activity"]
        measured[f"activity_{mode}"], measured[f"utilization_{mode}"] = activity["percent"], said
        seen = f"{activity['percent']}% by {activity['source']}; nvidia-smi's utilization {said}%"
        check(f"activity, {mode}", low <= activity["percent"] <= high, seen)
        check(f"processes, {mode}", device["processes"], device["processes"])
    with Load("idle", 8):
        used = once()["devices"][0]["memoryUsedMib"]
    check("memory in use", 8 * 1024 <= used < 12 * 1024, f"{used} MiB with 8 GiB held")


class Dev:
    """A federation on this machine, whose GPUs are one measured node of it."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        (self.folder / "fleet.toml").write_text(FLEET)
        command = [BIN / "tidewater", "dev", "--data-dir", self.folder / "dev", "--port", "0"]
        command += ["--fleet", self.folder / "fleet.toml"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready: "):
                self.server = line.split()[1]
                return self
        raise SystemExit("tidewater dev did not start")

    def __exit__(self, *_):
        self.process.terminate()
        check("dev ends", self.process.wait(timeout=60) == 0, f"code {self.process.returncode}")

    def cli(self, *args, code=True):
        command = [BIN / "tidewater", "--server", self.server, *args]
        return subprocess.run(command, capture_output=True, text=True, check=code)

    def gpus(self):
        rows = json.loads(self.cli("capacity", "-o", "json").stdout)["rows"]
        return next((row for row in rows if row["source"] == "measured" and row["sku"]), None)

    def submit(self, name, load, *options):
        self.cli("submit", "--name", name, "--memory", "4Gi", *options, "--", sys.executable, LOAD, *load)

    def status(self, name):
        return json.loads(self.cli("get", name, "-o", "json").stdout)["status"]

    def until(self, name, phases, seconds=120):
        end = time.monotonic() + seconds
        while (status := self.status(name))["phase"] not in phases and time.monotonic() < end:
            time.sleep(0.3)
        return status["phase"]

    def until_gpus(self, wanted, seconds=20):
        end = time.monotonic() + seconds
        while not ((row := self.gpus()) and wanted(row)) and time.monotonic() < end:
            time.sleep(0.3)
        return row


ENDED = ("Succeeded", "Failed", "Cancelled")


def jobs(dev):
    """What jobs see, and what is seen of them."""
    row = dev.until_gpus(lambda r: r["gpus"]["total"])
    if not row:
        print(dev.cli("clusters", "-o", "json").stdout, dev.cli("capacity", "-o", "json").stdout)
    check("capacity", row["gpus"]["total"] == row["gpus"]["free"] == 1, row["gpus"])
    dev.submit("whole", ["busy", "8"], "--gpus", "1")
    dev.until("whole", ("Running",))
    row = dev.until_gpus(lambda r: (r["activityPercent"] or 0) >= 80)
    check("a busy job's activity", (row["activityPercent"] or 0) >= 80 and row["gpus"]["free"] == 0, row)
    check("a busy job ends well", dev.until("whole", ENDED) == "Succeeded", dev.cli("logs", "whole").stdout.strip())
    check("it saw one device", "devices 1" in dev.cli("logs", "whole").stdout, "in its log")
    dev.submit("none", ["see"])
    dev.until("none", ENDED)
    said = dev.cli("logs", "none").stdout
    check("a job without GPUs sees none", "devices 0" in said, said.strip())
    for name in ("half-1", "half-2"):
        dev.submit(name, ["half", "10"], "--gpus", "0.5")
    both = [dev.until(name, ("Running",)) for name in ("half-1", "half-2")]
    check("two halves run on one device", both == ["Running", "Running"], both)
    for name in ("half-1", "half-2"):
        dev.until(name, ENDED)
        said = dev.cli("logs", name).stdout.strip()
        check(f"{name} was told its share", "devices 1" in said and "share [0.5]" in said, said)
    row = dev.until_gpus(lambda r: r["gpus"]["free"] == 1)
    check("all is free again", row["gpus"]["free"] == 1, row["gpus"])


def faults(dev):
    """A program that breaks its own memory: that is its own failure, and the GPU is as good as before."""
    dev.submit("faulty", ["fault"], "--gpus", "1")
    phase = dev.until("faulty", ENDED)
    said = dev.cli("logs", "faulty").stdout
    check("a program that writes where it may not fails", phase == "Failed" and "illegal memory access" in said, said[-200:])
    attempt = dev.status("faulty")["attempts"][-1]
    state = attempt["state"]
    check("that is its own failure", state.startswith("failed (user, exit code 1)") and "these failed" not in state, state[:200])
    check("it names the XID", "the driver told of: GPU 0 of node" in state and "(XID 31: GPU memory page fault)" in state, state[:200])
    row = dev.until_gpus(lambda r: r["gpus"]["free"] == 1)
    check("and its GPU is well", row["gpus"]["free"] == 1 and row["gpus"]["sick"] == 0, row["gpus"])
    dev.submit("after", ["see"], "--gpus", "1")
    check("and given out again", dev.until("after", ENDED) == "Succeeded", dev.status("after")["phase"])


def outsiders(dev):
    """A process that nobody was told of: its GPU is not given away, and who waits is told so."""
    with Load("idle", 4):
        row = dev.until_gpus(lambda r: r["gpus"]["ghosts"] == 1)
        check("a process from outside is a ghost", row["gpus"]["ghosts"] == 1 and row["gpus"]["free"] == 0, row["gpus"])
        dev.submit("waits", ["see"], "--gpus", "1")
        time.sleep(2)
        why = dev.cli("why", "waits").stdout
        check("who waits is told", dev.status("waits")["phase"] == "Queued" and "ghost" in why.lower() or "outside" in why, why)
    check("and starts when it is gone", dev.until("waits", ENDED) == "Succeeded", dev.status("waits")["phase"])


def idlers(dev):
    """Idle for longer than it may, and busy with the same limit."""
    dev.submit("idler", ["idle", "150", "2"], "--gpus", "1", "--idle-timeout", "1m")
    dev.until("idler", ("Running",))
    began = time.monotonic()
    phase = dev.until("idler", ENDED)
    measured["idle_ended_s"] = round(time.monotonic() - began, 1)
    check("an idle job is ended", phase == "Failed", f"{phase} after {measured['idle_ended_s']} s")
    print(dev.cli("describe", "idler").stdout, flush=True)
    dev.submit("worker", ["half", "75"], "--gpus", "1", "--idle-timeout", "1m")
    check("a busy one is not", dev.until("worker", ENDED) == "Succeeded", dev.status("worker")["phase"])


def resident_of_nvidia(smaps):
    """MiB resident of the driver's libraries: what is mapped of their files, and what follows on such a mapping without a file."""
    total, end, inside = 0, None, False
    for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps):
        head = block.splitlines()[0].split()
        start, this_end = head[0].split("-")
        file = head[5] if len(head) > 5 else None
        inside = bool(re.search(r"libnvidia|libcuda", file)) if file else inside and start == end
        end = this_end
        total += inside * int(re.search(r"^Rss: *(\d+)", block, re.M)[1])
    return total / 1024


def cost():
    """What the node role costs with the driver's own library in it."""
    folder = Path(tempfile.mkdtemp())
    tidewater = BIN / "tidewater"

    def identity(*more):
        command = [tidewater, "identity", "--ca", folder / "ca", "--cluster", "here", *more]
        return subprocess.check_output(command, text=True, cwd=folder).split()[-1]

    agent_identity, node_identity = identity(), identity("--node", "gpu-1")
    agent = [tidewater, "agent", "--cluster", "here", "--coordinator", "1=127.0.0.1:1", "--listen-nodes", "127.0.0.1:7790"]
    agent += ["--identity", agent_identity, "--data-dir", folder / "agent"]
    node = [tidewater, "node", "--agent", "127.0.0.1:7790", "--identity", node_identity]
    out = open(folder / "log", "w")
    processes = [subprocess.Popen(agent, stdout=out, stderr=out, cwd=folder)]
    time.sleep(2)
    processes.append(subprocess.Popen(node, stdout=out, stderr=out, cwd=folder))
    time.sleep(4)
    stat = lambda: sum(int(f) for f in Path(f"/proc/{processes[1].pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    with Load("half"):
        before, began = stat(), time.monotonic()
        time.sleep(30)
        spent = (stat() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    status = Path(f"/proc/{processes[1].pid}/status").read_text()
    nvidia = resident_of_nvidia(Path(f"/proc/{processes[1].pid}/smaps").read_text())
    rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
    measured["node_cpu_percent_of_core"] = round(100 * spent, 3)
    measured["node_rss_mib"], measured["node_rss_nvidia_mib"] = round(rss, 1), round(nvidia, 1)
    check("the node role's CPU", spent < 0.005, f"{100 * spent:.3f}% of a core")
    # NVML's own static data alone is 13 MiB, whoever loads it.
    check("the node role's memory", rss - nvidia < 20 / 1.048576, f"{rss:.1f} MiB, {nvidia:.1f} of it NVIDIA's libraries")
    for process in processes[::-1]:
        process.terminate()
        process.wait()
    shutil.rmtree(folder)


wanted = sys.argv[2:]
for part in (readings, cost):
    if not wanted or part.__name__ in wanted:
        part()
parts = [part for part in (jobs, faults, outsiders, idlers) if not wanted or part.__name__ in wanted]
if parts:
    with tempfile.TemporaryDirectory() as folder, Dev(Path(folder)) as dev:
        for part in parts:
            part(dev)
failed = [name for name, passed in checks if not passed]
print(json.dumps({"checks": len(checks), "failed": failed, **measured}))
sys.exit(1 if failed else 0)
