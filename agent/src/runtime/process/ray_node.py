"""Is one Ray node of an attempt's gang: `ray_node.py SOCKETS HEAD ARGUMENTS…` is `ray start ARGUMENTS…` with two changes.

It waits until the head listens at HEAD (`-` for the head itself): the guard starts all nodes at once, and Ray's own tries
would give up while a slow head starts. And its sockets are SOCKETS.store and SOCKETS.raylet: nodes of one session that
start on one machine at the same time would otherwise choose the same names, and `ray start` has no option for them.
"""

import socket
import sys
import time

PATIENCE_S = 180


def wait_for(head):
    host, port = head.rsplit(":", 1)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the Ray head at {head} did not listen within {PATIENCE_S} s: {error}")
        time.sleep(0.1)


def main():
    sockets, head, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    if head != "-":
        wait_for(head)

    from ray._private.parameter import RayParams
    from ray.scripts.scripts import main as ray

    plain = RayParams.__init__

    def with_sockets(self, *args, **kwargs):
        kwargs["plasma_store_socket_name"] = sockets + ".store"
        kwargs["raylet_socket_name"] = sockets + ".raylet"
        plain(self, *args, **kwargs)

    RayParams.__init__ = with_sockets
    sys.argv = ["ray", "start", *arguments]
    ray()


main()
