"""Asks, connects and talks without end, and counts what becomes of it by what the driver does meanwhile.

    frozen.py NETWORK.json PHASE-FILE

The file says the phase: normal, stopped, recovering-N, continued, killed, restarted, between (counted, and
nothing is promised), or end. Prints a line "PHASE KIND RESULT COUNT" for each that was seen. In a phase of
recovering the file well-N is made once many questions in a row are answered."""

import collections
import errno
import http.client
import json
import random
import socket
import sys
import threading
import time

PORT = 8000
# Names of the zone that are asked for: so the addresses of others were never given.
ASKED = 20
NOT_GIVEN = "198.51.100.160"
GIVEN = "given.work.example"
# Answers in a row after which all is well.
WELL = 20
# Between two operations of a thread: a question that fails at once would be the only thing that is done.
PAUSE = 0.03

zone = json.load(open(sys.argv[1]))
names = list(zone["listed"].items())[:ASKED]
unlisted = list(zone["unlisted"].items())
counts = collections.Counter()
lock = threading.Lock()
row = 0


def phase():
    with open(sys.argv[2]) as file:
        return file.read().strip()


def failure(error):
    if isinstance(error, socket.gaierror):
        return {socket.EAI_AGAIN: "no-answer", socket.EAI_NONAME: "no-such-name"}.get(error.errno, str(error))
    return errno.errorcode.get(error.errno, type(error).__name__).lower()


def reach(address):
    """Connects, and lets the server say where."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect((address, PORT))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    return "reached" if said.rstrip().endswith(address.encode()) else "elsewhere"


def question():
    """A new question, then a connection to what it says."""
    name, addresses = random.choice(names)
    found = socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)
    # One of two questions may have failed: what is there must be right.
    if not {entry[4][0] for entry in found} <= set(addresses):
        return "wrong-answer"
    return reach(random.choice(found)[4][0])


def unlisted_question():
    socket.getaddrinfo(random.choice(unlisted)[0], PORT, type=socket.SOCK_STREAM)
    return "answered"


def unlisted_address():
    return reach(random.choice(random.choice(unlisted)[1]))


class Established:
    """One connection for all the time."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(given, PORT, timeout=30)
        self.connection.connect()
        # Not made anew by itself when it is closed.
        self.connection.auto_open = 0

    def __call__(self):
        self.connection.request("GET", "/")
        return "reached" if self.connection.getresponse().read().strip() == given.encode() else "elsewhere"


def note(before, kind, result):
    global row
    after = phase()
    with lock:
        counts[before if before == after else "between", kind, result] += 1
        if kind == "question":
            row = row + 1 if result == "reached" and before == after else 0
            if row >= WELL and after.startswith("recovering-"):
                open(after.replace("recovering", "well"), "w").close()


def work(kind, operation):
    while (before := phase()) != "end":
        try:
            result = operation()
        except OSError as error:
            result = failure(error)
        except http.client.HTTPException as error:
            result = type(error).__name__
        note(before, kind, result)
        time.sleep(PAUSE)


given = socket.getaddrinfo(GIVEN, PORT, type=socket.SOCK_STREAM)[0][4][0]
tasks = [("question", question)] * 6 + [
    ("established", Established()),
    ("given-address", lambda: reach(given)),
    ("not-given-address", lambda: reach(NOT_GIVEN)),
    ("unlisted-question", unlisted_question),
    ("unlisted-address", unlisted_address),
]
threads = [threading.Thread(target=work, args=task) for task in tasks]
for thread in threads:
    thread.start()
open("want-freeze", "w").close()
for thread in threads:
    thread.join()
for (when, kind, result), count in sorted(counts.items()):
    print(f"counted {when} {kind} {result} {count}")
