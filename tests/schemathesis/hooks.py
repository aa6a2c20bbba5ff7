"""What schemathesis cannot know of openapi.yaml, because the contract says it in words.

Requests that are meant to be good are made so, and every second of them is about a task that is there. Requests that
are meant to be bad are sent as they are, but that all waits are kept short, for the time that they take.
"""

import datetime
import hashlib

import requests
import schemathesis
from schemathesis import GenerationMode

# How long a request may wait at most. Real waits are tried in tests/it.
WAIT_MS = 50
# Bounds count bytes, the contract's maxLength counts characters: text beyond ASCII is kept short.
WIDE_CHARACTERS = 32
BACKOFF_FIELDS = {
    "exponential": {"kind", "jitter", "base_ms", "factor", "max_ms"},
    "fixed": {"kind", "jitter", "base_ms"},
    "list": {"kind", "jitter", "delays_ms"},
}
BATCHES = {"submitTasks": "results", "completeTasks": "results", "heartbeat": "tasks"}


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, (dict, list)):
        shorten_waits(case.body)
    if case.query and is_long(case.query.get("wait_ms")):
        case.query["wait_ms"] = str(WAIT_MS)
    if case.headers and str(case.headers.get("Prefer", "")).startswith("wait="):
        case.headers["Prefer"] = "wait=0"
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        if isinstance(case.body, dict):
            case.body = as_the_words_say(case.body)
        if case.query:
            case.query.update(as_the_words_say(dict(case.query)))
        if case.headers and "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = idempotency_key(case)
        if case.meta.phase.name == "fuzzing":
            name_what_is_there(case)


submits = 0


def idempotency_key(case):
    """One key stands for one body. Where what was made is asked for next, it is made anew each time: a repeated submit
    is answered with the task of the first one, also when that has been deleted since."""
    global submits
    submits += 1
    of = repr(case.body) if case.meta.phase.name != "stateful" else f"{submits} {case.body!r}"
    return hashlib.sha256(of.encode()).hexdigest()


calls = 0


def name_what_is_there(case):
    """Every second request that needs a task or a lease gets one that was made for it."""
    global calls
    calls += 1
    if calls % 2:
        return
    url = case.operation.base_url
    operation = case.operation.definition.raw.get("operationId")
    if operation in ("completeTask", "failTask", "releaseTask"):
        case.body.update(lease(url))
    elif operation == "completeTasks":
        case.body["completions"][0].update(lease(url))
    elif operation == "heartbeat":
        case.body["tasks"][0].update(lease(url))
    elif operation in ("getTask", "cancelTask"):
        case.path_parameters["id"] = task(url)
    elif operation in ("deleteTask", "retryTask"):
        case.path_parameters["id"] = task(url)
        sent(f"{url}/tasks/{case.path_parameters['id']}/cancel", {})


def sent(url, body):
    response = requests.post(url, json=body, timeout=10)
    response.raise_for_status()
    return response.json()


def task(url):
    return sent(f"{url}/tasks", {"queue": "hooks"})["id"]


def lease(url):
    sent(f"{url}/tasks", {"queue": "hooks.leased"})
    claimed = sent(f"{url}/claim", {"queues": ["hooks.leased"]})["tasks"][0]
    return {"id": claimed["id"], "lease": claimed["lease"]}


def is_long(wait):
    return type(wait) in (int, str) and str(wait).isdecimal() and WAIT_MS < int(wait) <= 60000


def shorten_waits(value):
    """A wait within the bounds becomes a short one; one that is out of bounds stays so."""
    if isinstance(value, dict):
        if type(value.get("wait_ms")) is int and is_long(value["wait_ms"]):
            value["wait_ms"] = WAIT_MS
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            shorten_waits(inner)


def as_the_words_say(value):
    if isinstance(value, str):
        return value if value.isascii() else value[:WIDE_CHARACTERS]
    if isinstance(value, list):
        return [as_the_words_say(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    # What a task carries is for the worker, whatever its fields are called.
    opaque = ("payload", "result", "progress", "details")
    value = {name: inner if name in opaque else as_the_words_say(inner) for name, inner in value.items()}
    if "run_at" in value and "delay_ms" in value:
        del value["delay_ms"]
    if isinstance(value.get("run_at"), str):
        value["run_at"] = within_10_years(value["run_at"])
    if isinstance(value.get("backoff"), dict):
        value["backoff"] = backoff(value["backoff"])
    return value


def within_10_years(time):
    """The contract takes times up to 10 years from now."""
    year = datetime.date.today().year
    if time[:4].isdecimal() and not 1 <= int(time[:4]) <= year + 9:
        return "2000" + time[4:]
    return time


def backoff(policy):
    """Each kind has fields of its own."""
    kind = policy.get("kind", "exponential")
    policy = {name: value for name, value in policy.items() if name in BACKOFF_FIELDS[kind]}
    if kind == "list":
        policy.setdefault("delays_ms", [1000])
    return policy


@schemathesis.check
def items_are_judged_alone(context, response, case):
    """In batches each item stands or falls alone: what is wrong with one is said in a 200."""
    list_name = BATCHES.get(case.operation.definition.raw.get("operationId"))
    if list_name is None or response.status_code != 200 or case.meta is None:
        return
    problems = [result["problem"] for result in response.json()[list_name]]
    if case.meta.generation.mode == GenerationMode.NEGATIVE:
        assert any(problems), "a wrong item was accepted"
    else:
        # Good requests may name nobody's task or lease, and an idempotency key twice.
        for problem in filter(None, problems):
            assert problem["status"] in (404, 409) or problem["code"] == "idempotency_mismatch", problem
