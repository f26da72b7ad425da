"""Looks names up by getaddrinfo and connects, in several threads.

    lookups.py NETWORK.json COUNT THREADS

Each of COUNT operations asks for a name that the policy allows and gets a page from one of its addresses.
After each tenth, a name that it does not allow must not exist, and its address must be refused. The last
line is what came of it; lookups.js, lookups.go and lookups.sh do the same."""

import collections
import errno
import json
import random
import socket
import sys
import threading

PORT = 8000
# Names in use at a time: so each is left alone for longer than an address is open, and asked for again.
WINDOW = 20
ROUNDS = 2
TWIN_EVERY = 10

zone = json.load(open(sys.argv[1]))
total, threads = int(sys.argv[2]), int(sys.argv[3])
listed, unlisted = list(zone["listed"].items()), list(zone["unlisted"].items())
counts = collections.Counter()
lock = threading.Lock()


def note(what, wrong=None):
    with lock:
        counts[what] += 1
    if wrong:
        print(f"python: {wrong}", flush=True)


def page(family, address):
    """The address at which the server says that it was reached."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(address)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    return said.partition(b"\r\n\r\n")[2].strip().decode()


def operation(number):
    windows = len(listed) // WINDOW
    start = number * ROUNDS * windows // total % windows * WINDOW
    name, addresses = listed[start + random.randrange(WINDOW)]
    found = socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)
    note("lookups")
    got = sorted(entry[4][0] for entry in found)
    if got != sorted(addresses):
        note("wrong", f"{name} is {addresses}, and the answer was {got}")
    family, _, _, _, address = random.choice(found)
    if page(family, address) != address[0]:
        note("wrong", f"{address[0]} was not reached")
    note("connects")


def twin(number):
    name, addresses = unlisted[number % len(unlisted)]
    try:
        found = socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)
        note("wrong", f"{name}: {found}")
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            note("wrong", f"{name}: {error}")
        note("nxdomain")
    for address in addresses:
        try:
            page(socket.AF_INET6 if ":" in address else socket.AF_INET, (address, PORT))
            note("wrong", f"{address} was reached")
        except OSError as error:
            if error.errno != errno.EPERM:
                note("wrong", f"{address}: {error}")
            note("refused")


def work(first):
    for number in range(first, total, threads):
        try:
            operation(number)
        except OSError as error:
            note("wrong", f"operation {number}: {error!r}")
        if number % TWIN_EVERY == 0:
            twin(number // TWIN_EVERY)


workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print("tally python " + " ".join(str(counts[key]) for key in ("lookups", "connects", "nxdomain", "refused", "wrong")))
