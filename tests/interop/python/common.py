"""The command line that all the clients have, and what is expected of the messages."""

import argparse
import os
import socket
import sys

COUNT = 20
LARGE = bytes(n * 7 % 251 for n in range(200 * 1024))
USER_PROPERTIES = [("line", "7"), ("cell", "b"), ("line", "8")]


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("host", "port", "scheme", "version", "prefix", "scenarios"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("ca", "user", "password"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    args.port, args.version = int(args.port), int(args.version)
    return args


def expect(what, have, want):
    if have != want:
        sys.exit(f"{what}: {have!r:.500} instead of {want!r:.500}")


def payloads(name, count=COUNT):
    return [f"{name} {n}".encode() for n in range(count)]


def cut_off(connection):
    """Ends the connection below TLS and WebSocket, as a lost network does."""
    with socket.socket(fileno=os.dup(connection.fileno())) as lowest:
        lowest.shutdown(socket.SHUT_RDWR)
