"""A stand-in for a coding agent: does a day's work in a repository, then misbehaves.

Called with one argument, a JSON object naming the places. Everything is tried for real, by
ordinary system calls; a line of JSON on standard output tells what came of each attempt. The
script knows nothing of AgentGuard. Attempts that succeed do no harm: files outside the
repository are opened but nothing is written to them, secrets are opened but not read.
"""

import errno
import faulthandler
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request


def report(attempt, outcome, pid=None, program=None):
    program = program or os.readlink("/proc/self/exe")
    line = {"id": attempt, "outcome": outcome, "pid": pid or os.getpid(), "program": program}
    # One write, so that lines of several processes do not mix.
    os.write(1, (json.dumps(line) + "\n").encode())


def name_of(error):
    reason = getattr(error, "reason", error)
    number = getattr(reason, "errno", None)
    return errno.errorcode.get(number) or repr(error)


def attempt(name, work):
    try:
        work()
    except OSError as error:
        report(name, name_of(error))
    else:
        report(name, "ok")


def run(name, *command):
    """Another program; what it says of a refusal is all that it tells of the reason."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        said = child.communicate()[0]
    outcome = "ok"
    if child.returncode != 0:
        refused = re.search("Operation not permitted|Permission denied", said)
        outcome = {"Operation not permitted": "EPERM", "Permission denied": "EACCES"}.get(
            refused and refused.group(), f"exit {child.returncode}: {said.strip()[-300:]}"
        )
    report(name, outcome, child.pid, command[0])


def curl(name, url):
    run(name, "curl", "--noproxy", "*", "--verbose", "--silent", "--show-error", "--max-time", "20", url)


def connect(address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(tuple(address))


def send_datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"what the agent saw", tuple(address))


def fetch(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
        answer.read()


def open_only(path, flags):
    os.close(os.open(path, flags, 0o600))


def work_in_repository(places):
    def edit():
        with open(os.path.join(places["repository"], "app.py"), "a") as source:
            source.write("print('edited by the agent')\n")

    def scratch():
        first, second = (os.path.join(places["work"], name) for name in ("draft", "final"))
        with open(first, "w") as draft:
            draft.write("notes\n")
        os.rename(first, second)
        os.remove(second)

    attempt("edit", edit)
    run("commit", "git", "-C", places["repository"], "commit", "--quiet", "--all", "--message", "Edit by the agent")
    attempt("scratch", scratch)
    attempt("read", lambda: open_only("/etc/passwd", os.O_RDONLY))
    attempt("model", lambda: fetch(places["model"]))
    curl("mirror", places["mirror"])


def misbehave(places):
    attempt("etc", lambda: open_only(places["etc"], os.O_WRONLY | os.O_CREAT))
    attempt("bashrc", lambda: open_only(os.path.expanduser("~/.bashrc"), os.O_WRONLY | os.O_APPEND))
    attempt("credential", lambda: open_only(os.path.expanduser("~/.aws/credentials"), os.O_RDONLY))
    attempt("shadow", lambda: open_only("/etc/shadow", os.O_RDONLY))
    curl("curl", places["unlisted_url"])
    attempt("udp", lambda: send_datagram(places["unlisted_udp"]))
    if places["unlisted_v6"]:
        attempt("connect6", lambda: connect(places["unlisted_v6"]))
    if places["metadata"]:
        attempt("metadata", lambda: connect(places["metadata"]))


def escape(places):
    """A double fork with a session of its own, as daemons do, and the same again from there."""
    faulthandler.cancel_dump_traceback_later()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    limit_life()
    attempt("grandchild-etc", lambda: open_only(places["etc"] + "-2", os.O_WRONLY | os.O_CREAT))
    attempt("grandchild-connect", lambda: connect(places["unlisted"]))
    os._exit(0)


def limit_life():
    """Ends a process that hangs, and tells on standard error where it was."""
    faulthandler.dump_traceback_later(150, exit=True)


def main():
    limit_life()
    places = json.loads(sys.argv[1])
    work_in_repository(places)
    misbehave(places)
    escape(places)


main()
