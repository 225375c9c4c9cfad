"""Is one Ray node of an attempt's gang: `ray_node.py SOCKETS HEAD ARGUMENTS…` is `ray start ARGUMENTS…` with these changes.

- It waits until the head listens at HEAD (`-` for the head itself): the guard starts all nodes at once, and Ray's own
  tries would give up while a slow head starts.
- Its sockets are SOCKETS.store and SOCKETS.raylet: nodes of one session that start on one machine at the same time would
  otherwise choose the same names, and `ray start` has no option for them.
- 127.0.0.1 stays 127.0.0.1: Ray would make it an outer address, and listen on every interface.
- The head runs neither the client server nor those parts of the dashboard that no job needs: ten processes and a gigabyte,
  all of which must be up before the first raylet may start.
"""

import os
import socket
import sys
import time

PATIENCE_S = 180
# The job API, the list of nodes, and the state API that programs may ask.
DASHBOARD = "JobHead,NodeHead,StateHead"


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

    from ray._private import services
    from ray._private.parameter import RayParams
    from ray.scripts.scripts import main as ray

    plain_params, plain_start = RayParams.__init__, services.start_ray_process

    def params(self, *args, **kwargs):
        kwargs["plasma_store_socket_name"] = sockets + ".store"
        kwargs["raylet_socket_name"] = sockets + ".raylet"
        kwargs["ray_client_server_port"] = None
        plain_params(self, *args, **kwargs)

    def start(command, process_type, *args, **kwargs):
        if process_type == "dashboard":
            command = [*command, "--modules-to-load=" + DASHBOARD]
        return plain_start(command, process_type, *args, **kwargs)

    RayParams.__init__ = params
    services.start_ray_process = start
    services.resolve_ip_for_localhost = lambda host: host
    # The same for every process of this node: Ray's own switch, meant for systems that ask about each open port. Set only
    # now, as it would also forbid a second node.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    sys.argv = ["ray", "start", *arguments]
    ray()


main()
