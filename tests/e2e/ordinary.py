"""What a root agent without any privilege does all day, and what it may not.

Argument: a directory where it may write. Says every step that went otherwise.
"""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
PRIO_PROCESS = 0
WRONG = []


def goes(name, step):
    try:
        step()
    except (OSError, subprocess.CalledProcessError) as error:
        WRONG.append(f"{name}: {error}")


def refused(name, step):
    try:
        step()
    except OSError as error:
        if error.errno == errno.EPERM:
            return
        WRONG.append(f"{name}: {error}, not a refusal")
        return
    WRONG.append(f"{name}: was not refused")


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def child(work):
    """Runs something in a child; an error of it is one here."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(abs(code), os.strerror(abs(code)))


def with_child(act):
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        act(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def written(path, text):
    with open(path, "w") as file:
        file.write(text)


def as_nobody():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    subprocess.run(["/bin/true"], check=True)


def listening():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 81))
        server.listen()


def owning():
    # Both ends can be written to, and are closed: it comes at once.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    one, other = socket.socketpair()
    with one, other:
        fcntl.fcntl(one, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def owned_by_parent():
    one, other = socket.socketpair()
    with one, other:
        fcntl.fcntl(one, fcntl.F_SETOWN, os.getppid())


def main(directory):
    file = os.path.join(directory, "file")
    goes("signal a child", lambda: with_child(lambda pid: os.kill(pid, signal.SIGSTOP)))
    goes("ask for the parent", lambda: os.kill(os.getppid(), 0))
    goes("priority of a child", lambda: with_child(lambda pid: os.setpriority(PRIO_PROCESS, pid, 5)))
    limits = (64, 64)
    goes("limits of a child", lambda: with_child(
        lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)))
    goes("processors of a child", lambda: with_child(lambda pid: os.sched_setaffinity(pid, {0})))
    goes("scheduler of a child", lambda: with_child(
        lambda pid: os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))))
    goes("own name", lambda: written("/proc/self/comm", "ordinary"))
    goes("own place when memory runs out", lambda: written("/proc/self/oom_score_adj", "100"))
    goes("that of a child", lambda: with_child(
        lambda pid: written(f"/proc/{pid}/oom_score_adj", "200")))
    goes("write", lambda: written(file, "x"))
    goes("chown", lambda: os.chown(file, 65534, 65534))
    goes("chmod", lambda: os.chmod(file, 0o640))
    goes("become another user, and start a program", lambda: child(as_nobody))
    goes("listen at a low port", lambda: child(listening))
    goes("a signal when ready", lambda: child(owning))
    goes("packages", lambda: subprocess.run(
        ["dpkg-query", "--list"], check=True, stdout=subprocess.DEVNULL))
    goes("another root", lambda: child(lambda: os.chroot("/")))
    goes("see processes", lambda: [os.stat(f"/proc/{pid}") for pid in (1, os.getppid())])

    refused("signal process 1", lambda: os.kill(1, signal.SIGURG))
    refused("signal the parent", lambda: os.kill(os.getppid(), signal.SIGURG))
    refused("have the parent signalled", lambda: child(owned_by_parent))
    refused("priority of process 1", lambda: os.setpriority(PRIO_PROCESS, 1, 5))
    refused("a mount namespace", lambda: child(lambda: checked(LIBC.unshare(CLONE_NEWNS))))
    refused("a user namespace", lambda: child(lambda: checked(LIBC.unshare(CLONE_NEWUSER))))
    refused("rename the host", lambda: socket.sethostname("agent"))
    refused("a kernel setting", lambda: written("/proc/sys/kernel/domainname", "agent"))
    refused("leave the cgroup", lambda: written("/sys/fs/cgroup/cgroup.procs", "0"))
    print("\n".join(WRONG) or "as expected")


main(sys.argv[1])
