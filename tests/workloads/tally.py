"""An agent that counts what becomes of its own operations while others keep the kernel busy. Goes on
until /srv/tally/stop is there, then prints {"VERB VERDICT": COUNT, ...}: the kernel's counters for the
agent must say the same."""

import collections
import json
import os
import time

OWN = "/srv/tally"
OUTSIDE = "/srv/outside"


def opened(path, flags):
    os.close(os.open(path, flags, 0o644))


# What is tried in a round, and the decisions that it is.
ALLOWED = [
    (lambda: os.mkdir(f"{OWN}/directory"), ["create"]),
    (lambda: os.rename(f"{OWN}/directory", f"{OWN}/moved"), ["delete", "create"]),
    (lambda: os.rmdir(f"{OWN}/moved"), ["delete"]),
    (lambda: os.symlink("nowhere", f"{OWN}/link"), ["create"]),
    (lambda: os.unlink(f"{OWN}/link"), ["delete"]),
]
DENIED = [
    (lambda: os.mkdir(f"{OUTSIDE}/directory"), "create"),
    (lambda: os.symlink("nowhere", f"{OUTSIDE}/link"), "create"),
    (lambda: opened(f"{OUTSIDE}/file", os.O_WRONLY), "write"),
    (lambda: os.truncate(f"{OUTSIDE}/file", 0), "write"),
    (lambda: os.unlink(f"{OUTSIDE}/file"), "delete"),
    (lambda: os.chmod(f"{OUTSIDE}/file", 0o600), "attributes"),
    (lambda: opened("/srv/secrets/file", os.O_RDONLY), "read"),
]

counts = collections.Counter()
while not os.path.exists(f"{OWN}/stop"):
    for operation, verbs in ALLOWED:
        operation()
        counts.update(f"{verb} allow" for verb in verbs)
    for operation, verb in DENIED:
        try:
            operation()
            counts["through"] += 1
        except PermissionError:
            counts[f"{verb} deny"] += 1
    time.sleep(0.02)
if counts.pop("through", 0):
    raise SystemExit("something that must be denied got through")
print(json.dumps(counts))
