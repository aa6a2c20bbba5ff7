"""Prints the events of a stream, as httpx-sse gives them to a program, which reconnects by itself."""

import sys
import time

import httpx
import httpx_sse

last_id, delay = "", 1.0
while True:
    try:
        with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            with httpx_sse.connect_sse(client, "GET", sys.argv[1], headers=headers) as source:
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    delay = event.retry / 1000 if event.retry else delay
                    print(event.event if event.data else "unnamed", event.data, flush=True)
    except httpx.HTTPError:
        pass
    time.sleep(delay)
