"""Connects to a slot's socket from a process of its own, as it is told on standard input. Standard library only.

Each line is a command, each answer a line: `connect`, `send NUMBER HEX`, `receive NUMBER`, `flood COUNT`.
"""

from __future__ import annotations

import os
import socket
import sys


def main() -> None:
    # The socket's path may be longer than an address can be.
    os.chdir(sys.argv[1])
    connections: list[socket.socket] = []
    print("pid", os.getpid(), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        try:
            if command == "connect":
                connections.append(_connect())
                answer = str(len(connections) - 1)
            elif command == "send":
                answer = str(connections[int(words[0])].send(bytes.fromhex(words[1])))
            elif command == "receive":
                answer = connections[int(words[0])].recv(131_072).hex() or "end"
            elif command == "flood":
                answer = str(sum(_knock() for _ in range(int(words[0]))))
            else:
                answer = "what?"
        except OSError as error:
            answer = type(error).__name__
        print(answer, flush=True)


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Blocking, as the guest does it: a full backlog is waited for.
    connection.connect("executor.sock")
    connection.settimeout(20)
    return connection


def _knock() -> bool:
    """Connect and leave."""
    try:
        _connect().close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
