#!/usr/bin/env python3
"""Submitter and check of the demo, which demo.sh runs; standard library only.

    demo.py submit URL DIRECTORY LINKS        one task for each regular file under DIRECTORY
    demo.py check  URL LINKS DIGESTS COUNTS   compares the results with those of sha256sum and wc

LINKS is a directory with a numbered link to each file, so that the output of tools that print names is easy to parse.
File names are bytes here, as they are to the system.
"""

import base64
import http.client
import json
import os
import stat
import statistics
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from datetime import datetime

QUEUE = "demo"
BATCH = 1000
BATCH_BYTES = 4 << 20  # half of the server's limit


def call(url, body=None):
    """Sends a request, and repeats it for a minute while it fails. Submits have keys that make this safe."""
    # Unescaped text: worker.sh does not join the pairs of \u escapes of characters outside the BMP.
    data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code < 500 or time.monotonic() > deadline:
                sys.exit(f"{url}: {error.code} {error.read().decode(errors='replace')}")
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url}: {error}")
        time.sleep(0.5)


def name_of(path):
    """Returns a path as fields of a payload."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        return {"path_base64": base64.b64encode(path).decode()}


def path_of(payload):
    if "path_base64" in payload:
        return base64.b64decode(payload["path_base64"])
    return payload["path"].encode()


def key_of(directory):
    """Returns a directory as a routing key, a text of at most 256 bytes."""
    key = directory.decode(errors="backslashreplace")
    return key if len(key.encode()) <= 256 else str(uuid.uuid5(uuid.NAMESPACE_URL, key))


def regular_files(directory, left_out):
    for parent, children, names in os.walk(directory):
        children.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                left_out["not regular files"] += 1
            elif not os.access(path, os.R_OK):
                left_out["not readable"] += 1
            else:
                yield path


def submit(url, directory, links):
    run = uuid.uuid4()
    left_out, keys, total, not_utf8 = Counter(), set(), 0, 0
    batch, size = [], 0

    def flush():
        for result in call(f"{url}/tasks/batch", {"tasks": batch})["results"] if batch else []:
            if result["status"] != 201:
                sys.exit(f"a task was rejected: {result}")
        batch.clear()

    for path in regular_files(os.fsencode(os.path.abspath(directory)), left_out):
        task = {
            "queue": QUEUE,
            "key": key_of(os.path.dirname(path)),
            "payload": name_of(path),
            # The submit may be repeated after a lost response.
            "idempotency_key": f"{run}-{total}",
        }
        os.symlink(path, os.path.join(links, f"{total:07}"))
        total += 1
        keys.add(task["key"])
        not_utf8 += "path_base64" in task["payload"]
        batch.append(task)
        size += len(json.dumps(task))
        if len(batch) == BATCH or size > BATCH_BYTES:
            flush()
            size = 0
    flush()
    if total == 0:
        sys.exit("there are no regular files")
    print(f"submitted {total} tasks with {len(keys)} keys (directories); {not_utf8} names are not UTF-8")
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}")


def tasks_in(url, state):
    cursor = ""
    while cursor is not None:
        page = call(f"{url}/tasks?queue={QUEUE}&state={state}&limit=1000{cursor and '&cursor=' + cursor}")
        yield from page["tasks"]
        cursor = page["next_cursor"]


def expected(links, digests, counts):
    """Returns path → (digest, lines), from the lines `DIGEST  NUMBER` of sha256sum and `LINES NUMBER` of wc."""

    def column(file):
        with open(file) as lines:
            return {name: value for value, name in map(str.split, lines) if name != "total"}

    digest, lines = column(digests), column(counts)
    return {os.readlink(os.fsencode(os.path.join(links, n))): (digest[n], int(lines[n])) for n in os.listdir(links)}


def seconds(time_text):
    return datetime.fromisoformat(time_text.replace("Z", "+00:00")).timestamp()


def check(url, links, digests, counts):
    right = expected(links, digests, counts)
    missing, wrong = set(right), []
    workers, slots, deliveries, errors = Counter(), Counter(), 0, []
    submitted, finished = [], []
    for task in tasks_in(url, "completed"):
        path, result = path_of(task["payload"]), task["result"]
        if path not in missing or (result["sha256"], result["lines"]) != right[path]:
            wrong.append((path, result))
        missing.discard(path)
        workers[result["worker"]] += 1
        slots[task["slot"]] += 1
        errors += task["errors"]
        deliveries += task["acquired"]
        submitted.append(seconds(task["created_at"]))
        finished.append(seconds(task["finished_at"]))

    done = sum(workers.values())
    if done:
        taken = max(finished) - min(submitted)
        print(f"\n{'worker':40} {'tasks':>8} {'share':>7}")
        for worker, count in workers.most_common():
            print(f"{worker:40} {count:8} {100 * count / done:6.1f}%")
        spread = sorted(slots.values())
        print(f"\nslots used: {len(spread)} of 16384; tasks in a slot: least {spread[0]}, ", end="")
        print(f"median {statistics.median(spread):g}, most {spread[-1]}")
        print(f"delivered {deliveries} times, {len(errors)} attempts failed or had their lease expire")
        for error in errors[:10]:
            print(f"    {error['worker']}: {error['type']}: {error['message']!r}")
        print(f"{done} tasks in {taken:.1f} s, {done / max(taken, 0.001):.0f} a second\n")

    for task in tasks_in(url, "dead"):
        print(f"dead: {path_of(task['payload'])!r}: {task['errors'][-1]['message']!r}")
    for path, result in wrong[:10]:
        print(f"wrong: {path!r}: {result}, not {right.get(path)}")
    for path in sorted(missing)[:10]:
        print(f"missing: {path!r}")
    print(f"compared with sha256sum and wc: {done - len(wrong)} equal, {len(wrong)} wrong, {len(missing)} missing")
    return 1 if wrong or missing or not right else 0


if __name__ == "__main__":
    sys.exit({"submit": submit, "check": check}[sys.argv[1]](*sys.argv[2:]))
