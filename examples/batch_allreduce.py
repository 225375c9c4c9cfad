"""A ring all-reduce between the ranks of a batch gang, over plain sockets, checked on every rank.

Each rank holds a vector; after one trip of partial sums around the ring and one of the totals, every rank holds the sum
of all. Rank 0 listens at MASTER_ADDR:MASTER_PORT, where the others say who they are and learn their neighbour. Standard
library only.

    RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python3 batch_allreduce.py [LENGTH]
"""

import array
import json
import os
import socket
import struct
import sys
import time

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
MASTER = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
PATIENCE_S = 60


def connect(address):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(address, timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                sys.exit(f"rank {RANK}: nobody listens at {address}")
            time.sleep(0.05)


def meet(own_port):
    """Every rank's port, by rank."""
    if RANK != 0:
        with connect(MASTER) as master, master.makefile("rw") as lines:
            print(json.dumps([RANK, own_port]), file=lines, flush=True)
            return json.loads(lines.readline())
    ports, peers = {0: own_port}, []
    with socket.create_server(MASTER, backlog=WORLD) as server:
        server.settimeout(PATIENCE_S)
        while len(ports) < WORLD:
            peer, _ = server.accept()
            lines = peer.makefile("rw")
            rank, port = json.loads(lines.readline())
            ports[rank] = port
            peers.append((peer, lines))
    everyone = [ports[rank] for rank in range(WORLD)]
    for peer, lines in peers:
        print(json.dumps(everyone), file=lines, flush=True)
        lines.close()
        peer.close()
    return everyone


def send(stream, values):
    data = values.tobytes()
    stream.sendall(struct.pack("!I", len(data)) + data)


def receive(stream):
    def exactly(count):
        data = b""
        while len(data) < count:
            piece = stream.recv(count - len(data))
            if not piece:
                sys.exit(f"rank {RANK}: its neighbour left")
            data += piece
        return data

    values = array.array("q")
    values.frombytes(exactly(*struct.unpack("!I", exactly(4))))
    return values


def main():
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    own = array.array("q", ((RANK + 1) * i for i in range(length)))
    began = time.monotonic()
    total = own
    if WORLD > 1:
        with socket.create_server((MASTER[0], 0)) as server:
            ports = meet(server.getsockname()[1])
            after = connect((MASTER[0], ports[(RANK + 1) % WORLD]))
            server.settimeout(PATIENCE_S)
            before, _ = server.accept()
        if RANK == 0:
            send(after, own)
            total = receive(before)
            send(after, total)
            # It comes back once everyone has it.
            receive(before)
        else:
            send(after, array.array("q", map(sum, zip(receive(before), own))))
            total = receive(before)
            send(after, total)
    scale = WORLD * (WORLD + 1) // 2
    if any(value != scale * i for i, value in enumerate(total)):
        sys.exit(f"rank {RANK}: the sum is wrong")
    print(f"rank {RANK} of {WORLD}: {length} sums are right, last {total[-1]}, {time.monotonic() - began:.2f} s")


main()
