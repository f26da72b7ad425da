"""The agent of the tests: does what it is asked on standard input, one JSON request
a line, and answers with what the kernel said. Runs tagged or not; nothing in it knows
which."""

import ctypes
import errno
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD = -100
RENAME_EXCHANGE = 2
MSG_FASTOPEN = 0x20000000
OPERATIONS = {}
LISTENING = []
RECEIVED = []
HELD = []


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def checked(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def opened(path, flags, mode=0o644):
    os.close(os.open(path, flags, mode))


# Files


@operation
def open_read(path):
    opened(path, os.O_RDONLY)


@operation
def open_write(path):
    opened(path, os.O_WRONLY)


@operation
def open_both(path):
    opened(path, os.O_RDWR)


@operation
def open_append(path):
    opened(path, os.O_WRONLY | os.O_APPEND)


@operation
def open_truncate(path):
    opened(path, os.O_RDONLY | os.O_TRUNC)


@operation
def create(path):
    opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


@operation
def create_or_open(path):
    opened(path, os.O_WRONLY | os.O_CREAT)


@operation
def create_unnamed(path):
    opened(path, os.O_WRONLY | os.O_TMPFILE)


@operation
def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@operation
def list_directory(path):
    return sorted(os.listdir(path))


@operation
def mkdir(path):
    os.mkdir(path)


@operation
def unlink(path):
    os.unlink(path)


@operation
def rmdir(path):
    os.rmdir(path)


@operation
def rename(path, to):
    os.rename(path, to)


@operation
def exchange(path, to):
    checked(LIBC.renameat2(AT_FDCWD, path.encode(), AT_FDCWD, to.encode(), RENAME_EXCHANGE))


@operation
def link(path, to):
    os.link(path, to)


@operation
def symlink(path, to):
    os.symlink(path, to)


@operation
def truncate(path):
    os.truncate(path, 1)


@operation
def ftruncate(descriptor):
    os.ftruncate(descriptor, 1)


@operation
def chmod(path, mode):
    os.chmod(path, mode)


@operation
def chown(path):
    os.chown(path, 1, 1)


@operation
def lchown(path):
    os.lchown(path, 1, 1)


@operation
def mkfifo(path):
    os.mkfifo(path)


@operation
def mknod_device(path):
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@operation
def bind_unix(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


@operation
def execute(path):
    subprocess.run([path], check=False, stdin=subprocess.DEVNULL)


@operation
def within(directory, operation, arguments):
    """The operation with the directory as the working directory of a child."""
    return forked(lambda: (os.chdir(directory), do(operation, arguments))[1])


@operation
def in_chroot(directory, operation, arguments):
    def child():
        os.chroot(directory)
        os.chdir("/")
        return do(operation, arguments)

    return forked(child)


@operation
def in_own_mounts(source, target, operation, arguments):
    """The operation in a private mount namespace where source is bound on target."""

    def child():
        checked(LIBC.unshare(CLONE_NEWNS))
        checked(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        checked(LIBC.mount(source.encode(), target.encode(), None, MS_BIND, None))
        return do(operation, arguments)

    return forked(child)


@operation
def through_descriptor(directory, operation, name):
    """The operation on a name below a directory descriptor, by /proc/self/fd."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        return do(operation, {"path": f"/proc/self/fd/{descriptor}/{name}"})
    finally:
        os.close(descriptor)


# Network


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain_socket(address, kind):
    made = socket.socket(family(address), kind)
    made.settimeout(20)
    return made


@operation
def tcp(address, port):
    with plain_socket(address, socket.SOCK_STREAM) as client:
        client.connect((address, port))


@operation
def say(address, port, what, cuts):
    """Sends bytes in pieces that end at these places; all must come back."""
    stream = words(**what)
    with socket.socket(family(address), socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect((address, port))
        begin = 0
        for end in [*cuts, len(stream)]:
            piece = stream[begin:end]
            if piece:
                client.sendall(piece)
                # Each is a packet of its own: the next is sent when it has come back.
                exactly(client, len(piece))
                begin = end


def words(text=None, hello=None, fragment=None, before=""):
    if text is not None:
        return text.encode()
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    # The library writes names in lower case.
    name = hello.lower()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    stream = outgoing.read().replace(name.encode(), hello.encode())
    if fragment is not None:
        body = stream[5:]
        parts = (body[:fragment], body[fragment:])
        stream = b"".join(stream[:3] + struct.pack("!H", len(part)) + part for part in parts)
    return bytes.fromhex(before) + stream


@operation
def tcp_fast_open(address, port):
    # Without a time limit: that would make it one that does not block.
    with socket.socket(family(address), socket.SOCK_STREAM) as client:
        client.sendto(b"probe", MSG_FASTOPEN, (address, port))


@operation
def udp_connect(address, port):
    with plain_socket(address, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.send(b"probe")


@operation
def udp_look(address, port):
    """Connects, as libraries do to sort addresses, and sends nothing."""
    with plain_socket(address, socket.SOCK_DGRAM) as client:
        client.connect((address, port))


@operation
def udp_sendto(address, port):
    with plain_socket(address, socket.SOCK_DGRAM) as client:
        client.sendto(b"probe", (address, port))


@operation
def udp_sendmsg(address, port):
    with plain_socket(address, socket.SOCK_DGRAM) as client:
        client.sendmsg([b"pro", b"be"], [], 0, (address, port))


@operation
def resolve(server, name, over, patience=20):
    """Asks a server of the DNS for addresses (RFC 1035), as a resolver library does."""
    number = 0x4A6D
    labels = b"".join(
        bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")
    )
    question = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0)
    question += labels + b"\0" + struct.pack("!HH", 1, 1)
    kind = socket.SOCK_STREAM if over == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family(server), kind) as client:
        client.settimeout(patience)
        if over == "udp":
            client.sendto(question, (server, 53))
            reply, sender = client.recvfrom(4096)
            if sender[:2] != (server, 53):
                raise OSError(errno.EBADMSG, f"the answer is from {sender}")
        else:
            client.connect((server, 53))
            if client.getpeername()[:2] != (server, 53):
                raise OSError(errno.EBADMSG, f"connected to {client.getpeername()}")
            if over == "tcp":
                client.sendall(struct.pack("!H", len(question)) + question)
                (length,) = struct.unpack("!H", exactly(client, 2))
                reply = exactly(client, length)
            else:
                client.send(question)
                reply = client.recv(4096)
    return read_answer(reply, number)


def exactly(client, count):
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise OSError(errno.EPIPE, "the server hung up")
        data += more
    return data


def read_answer(reply, number):
    identity, flags, questions, answers = struct.unpack_from("!HHHH", reply)
    if identity != number:
        raise OSError(errno.EBADMSG, "the answer to something else")
    at = 12
    for _ in range(questions):
        at = behind_name(reply, at) + 4
    addresses = []
    for _ in range(answers):
        at = behind_name(reply, at)
        kind, _, _, length = struct.unpack_from("!HHIH", reply, at)
        at += 10
        if kind == 1:
            addresses.append(socket.inet_ntoa(reply[at : at + length]))
        at += length
    return {"code": flags & 15, "addresses": sorted(addresses)}


def behind_name(reply, at):
    while reply[at] not in (0,) and reply[at] < 0xC0:
        at += reply[at] + 1
    return at + (2 if reply[at] >= 0xC0 else 1)


@operation
def make_socket(family, kind, protocol):
    socket.socket(family, kind, protocol).close()


@operation
def set_option(level, option, value):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(level, option, bytes.fromhex(value))


@operation
def send_with_options(address, port, value):
    # IP_RETOPTS: options of this datagram alone.
    with plain_socket(address, socket.SOCK_DGRAM) as client:
        options = (socket.IPPROTO_IP, 7, bytes.fromhex(value))
        client.sendmsg([b"probe"], [options], 0, (address, port))


@operation
def netlink(message):
    """Asks about, or changes, link 1 (rtnetlink(7)); what the kernel says to that."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as made:
        made.settimeout(20)
        link = struct.pack("=BxHiII", 0, 0, 1, 0, 0)
        made.send(struct.pack("=IHHII", 16 + len(link), message, 0x5, 1, 0) + link)
        answer = made.recv(65536)
    kind = struct.unpack_from("=IH", answer)[1]
    if kind == 2:
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))


def unix_name(name):
    return "\0" + name[1:] if name.startswith("@") else name


@operation
def unix_connect(name, kind):
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.settimeout(20)
        client.connect(unix_name(name))


@operation
def unix_send(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"probe", unix_name(name))


@operation
def unix_bind(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(unix_name(name))


@operation
def unix_among_themselves(name):
    """A server and a client of the same run."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(unix_name(name))
        server.listen()
        client.settimeout(20)
        client.connect(unix_name(name))
        accepted, _ = server.accept()
        client.sendall(b"probe")
        said = accepted.recv(5).decode()
        accepted.close()
    os.unlink(name)
    return said


@operation
def bind(address, port, kind):
    with socket.socket(family(address), kind) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))


@operation
def listen(address, port):
    """Listens, if it may, until `answer_one`."""
    made = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
    except OSError:
        made.close()
        raise
    LISTENING.append(made)
    return {"port": made.getsockname()[1]}


@operation
def answer_one():
    server = LISTENING.pop()
    server.settimeout(20)
    accepted, _ = server.accept()
    accepted.sendall(accepted.recv(64))
    accepted.close()
    server.close()


@operation
def hold(address, port):
    """Connects, and keeps the connection for `send_held`."""
    made = plain_socket(address, socket.SOCK_STREAM)
    made.connect((address, port))
    HELD.append(made)


@operation
def listen_held():
    """Asks that a connection listens, which no kernel grants."""
    try:
        HELD[-1].listen()
    except OSError as error:
        return {"errno": error.errno}
    return {"errno": 0}


@operation
def send_held():
    HELD[-1].send(b"probe")


@operation
def receive(name):
    """Takes a descriptor that somebody sends to a socket which this process binds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(name)
        made.settimeout(20)
        _, descriptors, _, _ = socket.recv_fds(made, 16, 4)
    os.unlink(name)
    RECEIVED.extend(descriptors)
    return {"count": len(descriptors)}


@operation
def send_received():
    with socket.socket(fileno=RECEIVED.pop()) as client:
        client.send(b"probe")


@operation
def write_received():
    descriptor = RECEIVED.pop()
    try:
        os.write(descriptor, b"probe")
    finally:
        os.close(descriptor)


# Programs


@operation
def command(argv, env):
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env},
        timeout=120,
    )
    return {"code": done.returncode, "output": done.stdout.decode(errors="replace")}


@operation
def batch(requests):
    """Several requests in one task; returns how each ended."""
    return [passed_on(request.get("via", []), request) for request in requests]


@operation
def child_start():
    """Starts a child that lives until `child_end`."""
    process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    CHILDREN.append(process)
    return process.pid


CHILDREN = []


@operation
def child_end():
    process = CHILDREN.pop()
    process.kill()
    process.wait()


# Lineage: ways from here to another task that does the work


def forked(work):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            answer = work()
            os.write(into, json.dumps(answer).encode())
            code = 0
        except OSError as error:
            os.write(into, json.dumps(failure(error)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as result:
        text = result.read()
    os.waitpid(child, 0)
    return json.loads(text)


def fork(rest, request):
    return forked(lambda: passed_on(rest, request))


def orphan(rest, request):
    """Double fork: the work is done when the parent in between is gone."""
    out, into = os.pipe()
    alive, held = os.pipe()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            os.close(held)
            os.read(alive, 1)  # ends when the parent does
            os.write(into, json.dumps(passed_on(rest, request)).encode())
        os._exit(0)
    os.close(into)
    os.close(held)
    os.close(alive)
    os.waitpid(middle, 0)
    with os.fdopen(out, "rb") as result:
        return json.loads(result.read())


def setsid(rest, request):
    def child():
        os.setsid()
        return passed_on(rest, request)

    return forked(child)


def thread(rest, request):
    answers = []
    worker = threading.Thread(target=lambda: answers.append(passed_on(rest, request)))
    worker.start()
    worker.join()
    return answers[0]


def again(rest, request):
    return [sys.executable, os.path.abspath(__file__), "--one", json.dumps({**request, "via": rest})]


def spawn(rest, request):
    """A new program by subprocess, which uses vfork."""
    done = subprocess.run(
        again(rest, request), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def posix_spawn(rest, request):
    out, into = os.pipe()
    arguments = again(rest, request)
    actions = [(os.POSIX_SPAWN_DUP2, into, 1), (os.POSIX_SPAWN_CLOSE, out)]
    child = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=actions)
    os.close(into)
    with os.fdopen(out, "rb") as result:
        text = result.read()
    os.waitpid(child, 0)
    return json.loads(text)


def nobody(rest, request):
    """Gives up root: a tag is no matter of users."""

    def child():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        return passed_on(rest, request)

    return forked(child)


def shell(rest, request):
    arguments = again(rest, request)
    line = " ".join(f"'{argument}'" for argument in arguments)
    done = subprocess.run(
        ["sh", "-c", f"({line}) & wait"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


WAYS = {
    way.__name__: way
    for way in (fork, orphan, setsid, thread, spawn, posix_spawn, nobody, shell)
}


def failure(error):
    number = getattr(error, "errno", None)
    return {"ok": False, "errno": errno.errorcode.get(number, type(error).__name__)}


def do(name, arguments):
    try:
        value = OPERATIONS[name](**arguments)
    except OSError as error:
        return failure(error)
    if isinstance(value, dict) and "ok" in value:
        return value
    return {"ok": True, "value": value}


def passed_on(via, request):
    if via:
        return WAYS[via[0]](via[1:], request)
    arguments = {key: value for key, value in request.items() if key not in ("op", "via")}
    return do(request["op"], arguments)


def answer(line):
    request = json.loads(line)
    return json.dumps(passed_on(request.get("via", []), request))


def main():
    if sys.argv[1:2] == ["--one"]:
        print(answer(sys.argv[2]))
        return
    hello = {"pid": os.getpid(), "run": os.environ.get("AGENTGUARD_RUN_ID")}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        print(answer(line), flush=True)


if __name__ == "__main__":
    main()
