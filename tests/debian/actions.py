"""What an agent tries once. Prints a line for each: what happened, or the error's name."""

import errno
import os
import socket


def outcome(action):
    try:
        action()
        return "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def write(path):
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))


def connect(kind, address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return lambda: socket.socket(family, kind).connect(address)


for name, action in {
    "write-allowed": write("/srv/agent/file"),
    "write-denied": write("/srv/other/file"),
    # Nobody listens there: refused by the network, not by AgentGuard.
    "connect-allowed": connect(socket.SOCK_STREAM, ("127.0.0.1", 8)),
    "connect-denied": connect(socket.SOCK_STREAM, ("127.0.0.1", 9)),
    "connect-denied-udp": connect(socket.SOCK_DGRAM, ("127.0.0.1", 9)),
    "connect-denied-6": connect(socket.SOCK_STREAM, ("::1", 9)),
}.items():
    print(name, outcome(action))
