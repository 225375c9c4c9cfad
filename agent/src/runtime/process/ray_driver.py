"""Takes one job through a Ray cluster of its own, under the attempt's guard: `ray_driver.py JOB.json`.

Waits until every node of the gang has joined, submits the job once through Ray's job REST API under a fixed
submission id, copies its log to stdout, and ends as the job ends: 0, or 1 with the reason in the verdict file.
Standard library only, so that it starts quickly. It runs under the guard and not in the agent: an agent that is killed
and comes back neither loses the job nor submits it again.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

POLL_S = 0.25
# How long the head may take to start, the gang to join, and a running head to leave requests unanswered.
START_PATIENCE_S = 180
SILENCE_PATIENCE_S = 60
TAIL_BYTES = 2048
TAIL_LINES = 12


class Unreachable(Exception):
    pass


class Job:
    def __init__(self, job):
        self.job = job
        self.token = os.environ.get("RAY_AUTH_TOKEN", "")
        # Loopback is never asked of a proxy.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.log = None
        self.unread = b""

    def ask(self, path, body=None):
        """The answer's JSON, or None for 404."""
        request = urllib.request.Request(self.job["dashboard"] + path)
        request.add_header("Authorization", "Bearer " + self.token)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self.opener.open(request, timeout=15) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Unreachable(f"{path}: HTTP {error.code}: {error.read(500).decode(errors='replace')}")
        except (OSError, ValueError) as error:
            raise Unreachable(f"{path}: {error}")

    def say_ready(self, text):
        path = self.job["ready"]
        with open(path + ".new", "w") as file:
            file.write(text)
        os.rename(path + ".new", path)

    def wait_for_gang(self):
        wanted, said = self.job["nodes"], None
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                joined = self.joined()
                problem = f"{joined} of {wanted} Ray nodes joined"
                if joined >= wanted:
                    return
            except Unreachable as error:
                problem = "Ray's head to start"
                last = error
            if time.monotonic() > deadline:
                detail = "" if problem.endswith("joined") else f" ({last})"
                self.fail("infrastructure", f"Ray did not start within {START_PATIENCE_S} s: {problem}{detail}")
            if problem != said:
                said = problem
                self.say_ready(problem)
            time.sleep(POLL_S)

    def joined(self):
        nodes = self.ask("/nodes?view=summary")
        if nodes is None:
            raise Unreachable("no list of nodes yet")
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes["data"]["summary"])

    def submit(self):
        """An answer may be lost, so the job is looked for before it is sent again."""
        deadline = time.monotonic() + SILENCE_PATIENCE_S
        body = {"entrypoint": self.job["entrypoint"], "submission_id": self.job["id"]}
        while True:
            try:
                if self.ask("/api/jobs/" + self.job["id"]) is None:
                    self.ask("/api/jobs/", body)
                return
            except Unreachable as error:
                if time.monotonic() > deadline:
                    self.fail("infrastructure", f"Ray did not take the job: {error}")
            time.sleep(1)

    def follow(self):
        heard = time.monotonic()
        while True:
            self.copy_log()
            try:
                info = self.ask("/api/jobs/" + self.job["id"])
                heard = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - heard > SILENCE_PATIENCE_S:
                    self.fail("infrastructure", f"Ray's head no longer answers: {error}")
                info = {}
            if info is None:
                self.fail("infrastructure", "Ray's head lost the job")
            if info.get("status") in ("SUCCEEDED", "FAILED", "STOPPED"):
                # What the program wrote last may still be on its way to the file.
                time.sleep(POLL_S)
                self.copy_log()
                return info
            time.sleep(POLL_S)

    def copy_log(self):
        try:
            self.log = self.log or open(self.job["log"], "rb")
        except FileNotFoundError:
            return
        while piece := self.log.read(1 << 16):
            sys.stdout.buffer.write(piece)
            self.unread = (self.unread + piece)[-TAIL_BYTES:]
        sys.stdout.buffer.flush()

    def conclude(self, info):
        if info["status"] == "SUCCEEDED":
            return
        code = info.get("driver_exit_code")
        if info["status"] == "STOPPED":
            self.fail("user", "the Ray job was stopped through Ray's own API")
        if code is None:
            self.fail("infrastructure", "Ray could not run the job: " + str(info.get("message"))[-TAIL_BYTES:])
        end = "\n".join(self.unread.decode(errors="replace").splitlines()[-TAIL_LINES:])
        if code in (-9, 137):
            what = "the Ray job's driver was killed by SIGKILL: by the kernel for want of memory, or from outside"
            self.fail("infrastructure", f"{what}; the end of its log:\n{end}", 137)
        code = code if code >= 0 else 128 - code
        self.fail("user", f"the Ray job ended with exit code {code}; the end of its log:\n{end}", code)

    def fail(self, reason_class, message, code=None):
        path = self.job["verdict"]
        with open(path + ".new", "w") as file:
            json.dump({"class": reason_class, "message": message, "exit_code": code}, file)
        os.rename(path + ".new", path)
        sys.exit(1)


def main():
    with open(sys.argv[1]) as file:
        job = Job(json.load(file))
    job.wait_for_gang()
    job.say_ready("running")
    job.submit()
    job.conclude(job.follow())


main()
