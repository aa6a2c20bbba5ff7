#!/usr/bin/env python3
"""A Slotwheel worker in Python (3.9 or later), with nothing but the standard library.

    SLOTWHEEL_URL=http://127.0.0.1:8080 python3 examples/worker.py [queue]

It takes one task at a time; the report on a task brings the next one in the same round trip. To make it yours, change
`work`. For more at once run more of these: a process for each is also what Python needs to use more than one core.
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

stopping = None  # when the worker was told to stop
current = None  # the task being worked on
completed = 0


def work(payload, check):
    """The work itself: returns the result, or raises if the attempt has failed.

    Call `check` now and then: it raises Abandon once the task is cancelled or lost, or the worker is to stop.
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
    """There is no point in going on with this task."""


class ServerAway(Exception):
    """There was no answer in the time left after a signal."""


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
        """One try: the status, Retry-After in seconds, and the text of the answer."""
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
        """Sends the same body until there is an answer: its status and, if that is 200, what it says.

        This is safe: the server answers a report or a claim that it has seen as it did the first time.
        """
        tries = 0
        while True:
            try:
                status, retry_after, text = self.send(path, body)
                if status < 500 and status not in (408, 429):
                    if tries > 1:
                        log("the server is back")
                    if status != 200:
                        log(f"{path} is refused: {status} {text.decode(errors='replace')}")
                    return status, json.loads(text) if status == 200 else None
                why = f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                retry_after, why = 0, repr(error)
            if stopping and time.monotonic() > stopping + 5:
                raise ServerAway
            # An idle connection may have been closed meanwhile: at first try again at once.
            if tries > 0 or retry_after:
                backoff = 0.5 if stopping else min(10, 0.5 * 2 ** min(tries, 10))
                least = retry_after + random.random() / 2 if retry_after else 0
                sleep(max(random.uniform(backoff / 2, backoff), least))
            if tries == 1:
                log(f"{path} gets no answer ({why}); trying again until it does")
            tries += 1

    def interrupt(self):
        """Ends a long poll that is under way; `send` then fails and is tried again, without waiting."""
        if self.polling and self.connection.sock:
            try:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def sleep(seconds):
    """In small steps, since a signal handler does not end time.sleep."""
    stopped, until = stopping, time.monotonic() + seconds
    while stopping == stopped and time.monotonic() < until:
        time.sleep(0.1)


def claim_request():
    # claim_id makes it safe to repeat the call: if the answer got lost, the next one brings the same task.
    return {
        "queues": [QUEUE],
        "worker": WORKER,
        "lease_ms": LEASE_MS,
        "wait_ms": WAIT_MS,
        "claim_id": str(uuid.uuid4()),
    }


def claim(server):
    """Waits for a task; None if there was none in time."""
    status, answer = server.request("/claim", claim_request())
    if status != 200:
        sys.exit(1)  # wrong URL or queue: trying again would not help
    return first(answer["tasks"])


def first(tasks):
    return tasks[0] if tasks else None


def perform(server, task):
    """Works on a task and reports; returns the next task, if the report brought one."""
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
    status, answer = server.request(verb, report)
    if verb == "/complete":
        if status == 200:
            completed += 1
            return first(answer["tasks"])
        if status not in (404, 409):  # those mean: too late. Any other: the result will not do, now or later
            error = {"type": "ResultRefused", "message": f"the server answered {status} to the result"}
            server.request("/fail", {**proof, "error": error, "retry": False})
    return None


def describe(error):
    # Text from outside, such as file names, may hold what JSON cannot carry.
    message = str(error)[:1000].encode(errors="replace").decode()
    return {"type": type(error).__name__, "message": message}


def heartbeats():
    """Runs beside the work. Beats every third of a lease, so that two beats may get lost."""
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
            beat = json.loads(text)["tasks"][0]
            if task is current and (beat["problem"] or beat["cancel_requested"]):
                log(f"{task['id']} is cancelled or lost; leaving it")
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

    log(f"working on queue {QUEUE} at {URL}")
    task = None
    try:
        while not stopping:
            if task is None:
                task = claim(server)
            else:
                task = perform(server, task)
        if task:
            server.request("/release", {"id": task["id"], "lease": task["lease"]})
    except ServerAway:
        log("the server is away; what this worker holds comes back when its lease runs out")
    log(f"stopped; {completed} tasks completed")


if __name__ == "__main__":
    main()
