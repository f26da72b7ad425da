"""Server-sent events: one a second for as long as the client stays, and a client that goes on reading while
what its name was given for ends and is given anew, again and again.

    events.py serve PORT
    events.py follow NAME PORT MINUTES"""

import errno
import http.server
import socket
import sys
import threading
import time

# What a TTL of 60 s gives (docs/network-mediation.md), and what a slow machine may add to see it.
GIVEN = 90
SLACK = 15


class Events(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        number = 0
        due = time.monotonic()
        while True:
            number += 1
            try:
                self.wfile.write(b"id: %d\ndata: tick\n\n" % number)
            except OSError:
                return
            due += 1
            time.sleep(max(0, due - time.monotonic()))

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


class Stream(threading.Thread):
    """Reads events; what is not the one after the last ends it."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.connection = socket.create_connection(address, timeout=30)
        self.connection.sendall(b"GET / HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
        self.last = 0
        self.longest = 0.0
        self.error = None

    def run(self):
        before = time.monotonic()
        try:
            for line in self.connection.makefile("rb"):
                if not line.startswith(b"id: "):
                    continue
                now = time.monotonic()
                self.longest, before = max(self.longest, now - before), now
                if int(line[4:]) != self.last + 1:
                    raise ValueError(f"event {line[4:]} after {self.last}")
                self.last += 1
            raise ValueError("the stream ended")
        except (OSError, ValueError) as error:
            self.error = error

    def goes_on(self):
        """Another event comes."""
        seen = self.last
        end = time.monotonic() + SLACK
        while self.last == seen:
            if self.error or time.monotonic() > end:
                sys.exit(f"after {seen} events: {self.error or 'no more'}")
            time.sleep(0.1)


def is_let_in(address):
    try:
        socket.create_connection(address, timeout=30).close()
        return True
    except OSError as error:
        if error.errno == errno.EPERM:
            return False
        raise


def asked(name, port):
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return time.monotonic(), found[0][4]


def follow(name, port, minutes):
    end = time.monotonic() + 60 * minutes
    given, address = asked(name, port)
    stream = Stream(address)
    stream.start()
    refused, allowed = 0, 1
    while time.monotonic() < end:
        before = time.monotonic() - given
        if is_let_in(address):
            if before > GIVEN + SLACK:
                sys.exit(f"let in {before:.1f} s after the answer")
            allowed += 1
            time.sleep(1)
            continue
        passed = time.monotonic() - given
        if passed < GIVEN - 1:
            sys.exit(f"refused {passed:.1f} s after the answer")
        refused += 1
        print(f"refused {passed:.1f} s after the answer, at event {stream.last}", flush=True)
        stream.goes_on()
        given, address = asked(name, port)
        if not is_let_in(address):
            sys.exit("refused after a new answer")
        allowed += 1
    stream.goes_on()
    least = 60 * minutes - SLACK
    if stream.last < least:
        sys.exit(f"{stream.last} events in {minutes} minutes")
    print(f"events {stream.last}, longest wait {stream.longest:.1f} s, let in {allowed}, refused {refused}")


if sys.argv[1] == "serve":
    Server(("::", int(sys.argv[2])), Events).serve_forever()
else:
    follow(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
