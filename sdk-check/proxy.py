"""A proxy that adds a field to every object of a JSON response, as a later version of the server may do.

The values that belong to a task's client or worker (payload, result, progress, details, headers) pass unchanged.
"""

import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OPAQUE = ("payload", "result", "progress", "details", "headers")
ADDED = "added_by_a_later_version"


def extended(value):
    if isinstance(value, list):
        return [extended(inner) for inner in value]
    if isinstance(value, dict):
        value = {name: inner if name in OPAQUE else extended(inner) for name, inner in value.items()}
        value[ADDED] = {"values": [1, None, "x"]}
    return value


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self.chunks())
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("host", "connection", "transfer-encoding", "content-length", "accept-encoding")}
        server = http.client.HTTPConnection(self.server.target, timeout=60)
        server.request(self.command, self.path, body or None, headers)
        response = server.getresponse()
        text, kind = response.read(), response.headers.get("Content-Type", "")
        if "json" in kind:
            text = json.dumps(extended(json.loads(text)), ensure_ascii=False, separators=(",", ":")).encode()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_):
        pass

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = forward


def start(target):
    """Returns a proxy to `target`, HOST:PORT, at a port of 127.0.0.1 that the system chooses."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    proxy.target = target
    return proxy


if __name__ == "__main__":
    start(sys.argv[1]).serve_forever()
