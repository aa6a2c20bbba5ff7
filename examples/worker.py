#!/usr/bin/env python3
"""A Slotwheel worker in Python (3.9 or later), with the standard library only.

    SLOTWHEEL_URL=http://127.0.0.1:8080 python3 examples/worker.py [queue]

It runs one task at a time. The completion of a task also claims the next one. To make it yours, change `work`. To run
more tasks at once, run more processes, which Python needs anyway to use more than one core.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
from urllib.parse import urlsplit

URL = os.environ.get("SLOTWHEEL_URL", "http://127.0.0.1:8080")
QUEUE = sys.argv[1] if len(sys.argv) > 1 else "default"
WORKER = f"python-{socket.gethostname()}-{os.getpid()}"
LEASE_MS = 30_000
WAIT_MS = 20_000

stopping = None  # time of the signal to stop
current = None  # the task in work
completed = 0


def work(payload, check):
    """The work itself: returns the result, or raises if the attempt has failed.

    Call `check` now and then: it raises Abandon if the task is cancelled, its lease is lost, or the worker stops.
    """
    if "path_base64" in payload:
        path = base64.b64decode(payload["path_base64"])
    else:
        path = payload["path"].encode()
    digest, lines = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            check()
            digest.update(chunk)
            lines += chunk.count(b"\n")
    return {"sha256": digest.hexdigest(), "lines": lines, "worker": WORKER}


class Abandon(Exception):
    """The task is cancelled, its lease is lost, or the worker stops."""


class ServerUnavailable(Exception):
    """A request got no response within the time left after a signal."""


def log(text):
    print(f"{WORKER}: {text}", file=sys.stderr, flush=True)


class Server:
    """One connection, kept open between requests. Each thread has its own."""

    def __init__(self):
        url = urlsplit(URL)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(url.hostname, url.port, timeout=WAIT_MS / 1000 + 10)
        self.path = url.path.rstrip("/")
        self.polling = False

    def send(self, path, body):
        """Sends a request once. Returns the status, Retry-After in seconds, and the body."""
        try:
            if self.connection.sock is None:
                self.connection.connect()
            claim = body.get("claim", body)
            self.polling = "wait_ms" in claim
            if self.polling and stopping:
                claim["wait_ms"] = 0
            headers = {"Content-Type": "application/json"}
            self.connection.request("POST", self.path + path, json.dumps(body), headers)
            response = self.connection.getresponse()
            text = response.read()
        except BaseException:
            self.connection.close()
            raise
        finally:
            self.polling = False
        retry_after = response.getheader("Retry-After", "")
        return response.status, int(retry_after) if retry_after.isdecimal() else 0, text

    def request(self, path, body):
        """Repeats a request until it gets a response. Returns the status and, if that is 200, the body.

        Repeating is safe: the server answers a repeated report or claim as it did the first time.
        """
        tries = 0
        while True:
            try:
                status, retry_after, text = self.send(path, body)
                if status < 500 and status not in (408, 429):
                    if tries > 1:
                        log("the server is available again")
                    if status != 200:
                        log(f"{path} rejected: {status} {text.decode(errors='replace')}")
                    return status, json.loads(text) if status == 200 else None
                reason = f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                retry_after, reason = 0, repr(error)
            if stopping and time.monotonic() > stopping + 5:
                raise ServerUnavailable
            # The server may have closed an idle connection: repeat the first time without a pause.
            if tries > 0 or retry_after:
                backoff = 0.5 if stopping else min(10, 0.5 * 2 ** min(tries, 10))
                least = retry_after + random.random() / 2 if retry_after else 0
                sleep(max(random.uniform(backoff / 2, backoff), least))
            if tries == 1:
                log(f"{path} failed ({reason}); repeating it")
            tries += 1

    def interrupt(self):
        """Ends a long poll in progress; `send` then fails, and the claim is repeated without waiting."""
        if self.polling and self.connection.sock:
            try:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def sleep(seconds):
    """Sleeps in small steps, because a signal handler does not end time.sleep."""
    stopped, until = stopping, time.monotonic() + seconds
    while stopping == stopped and time.monotonic() < until:
        time.sleep(0.1)


def claim_request():
    # claim_id makes the claim safe to repeat: if a response is lost, the next one has the same task.
    return {
        "queues": [QUEUE],
        "worker": WORKER,
        "lease_ms": LEASE_MS,
        "wait_ms": WAIT_MS,
        "claim_id": str(uuid.uuid4()),
    }


def claim(server):
    """Claims a task; None if none was ready in time."""
    status, body = server.request("/claim", claim_request())
    if status != 200:
        sys.exit(1)  # wrong URL or queue: repeating would not help
    return first(body["tasks"])


def first(tasks):
    return tasks[0] if tasks else None


def perform(server, task):
    """Works on a task and reports its outcome. Returns the next task, if the completion claimed one."""
    global current, completed
    proof = {"id": task["id"], "lease": task["lease"]}

    def check():
        if stopping or task.get("abandon"):
            raise Abandon

    current = task
    try:
        result = work(task["payload"], check)
    except Abandon:
        verb, report = "/release", proof
    except Exception as error:
        log(f"{task['id']} failed: {error!r}")
        verb, report = "/fail", {**proof, "error": describe(error)}
    else:
        verb, report = "/complete", {**proof, "result": result, "claim": claim_request()}
    finally:
        current = None
    status, body = server.request(verb, report)
    if verb == "/complete":
        if status == 200:
            completed += 1
            return first(body["tasks"])
        # 404 and 409: the report is too late. Any other status: the server rejects this result.
        if status not in (404, 409):
            error = {"type": "ResultRejected", "message": f"the server rejected the result: {status}"}
            server.request("/fail", {**proof, "error": error, "retry": False})
    return None


def describe(error):
    # External text, such as file names, may contain characters that JSON cannot represent.
    message = str(error)[:1000].encode(errors="replace").decode()
    return {"type": type(error).__name__, "message": message}


def heartbeats():
    """Extends the lease beside the work, every third of a lease, so that two heartbeats may be lost."""
    server = Server()
    while True:
        time.sleep(LEASE_MS / 3000)
        task = current
        if task is None:
            continue
        item = {"id": task["id"], "lease": task["lease"], "lease_ms": LEASE_MS}
        try:
            status, _, text = server.send("/heartbeat", {"worker": WORKER, "tasks": [item]})
        except (OSError, http.client.HTTPException):
            continue
        if status == 200:
            result = json.loads(text)["tasks"][0]
            if task is current and (result["problem"] or result["cancel_requested"]):
                log(f"{task['id']} is cancelled or its lease is lost; abandoning it")
                task["abandon"] = True


def main():
    server = Server()

    def stop(*_):
        global stopping
        stopping = stopping or time.monotonic()
        server.interrupt()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=heartbeats, daemon=True).start()

    log(f"claiming from queue {QUEUE} at {URL}")
    task = None
    try:
        while not stopping:
            if task is None:
                task = claim(server)
            else:
                task = perform(server, task)
        if task:
            server.request("/release", {"id": task["id"], "lease": task["lease"]})
    except ServerUnavailable:
        log("the server is unavailable; the task of this worker returns when its lease expires")
    log(f"stopped; {completed} tasks completed")


if __name__ == "__main__":
    main()
