"""Hooks for rules that openapi.yaml states in prose, so that schemathesis cannot know them.

Positive requests are made to obey these rules, and every second one names an existing task. Negative requests are sent
unchanged, except that waits are shortened to save time.
"""

import datetime
import hashlib
import json

import requests
import schemathesis
from schemathesis import GenerationMode

# Limit of a request's wait, ms. Real waits are tested in tests/it.
WAIT_MS = 50
# Limits count bytes, the contract's maxLength counts characters: text beyond ASCII is shortened.
WIDE_CHARACTERS = 32
BACKOFF_FIELDS = {
    "exponential": {"kind", "jitter", "base_ms", "factor", "max_ms"},
    "fixed": {"kind", "jitter", "base_ms"},
    "list": {"kind", "jitter", "delays_ms"},
}
BATCHES = {
    "submitTasks": "results", "completeTasks": "results", "failTasks": "results", "releaseTasks": "results", "heartbeatTasks": "tasks",
}
# Operations that take what refusing would lose: a number out of its bounds is clamped, a text is cut.
REPORTS = {"completeTask", "completeTasks", "failTask", "failTasks", "releaseTask", "releaseTasks", "heartbeatTasks"}


@schemathesis.hook
def before_load_schema(context, schema):
    """Turns the body of each link from JSON in a string, which the contract has for other tools, into that JSON."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):
                for response in operation["responses"].values():
                    for link in response.get("links", {}).values():
                        if "requestBody" in link:
                            link["requestBody"] = json.loads(link["requestBody"].replace("{$", "$").replace('}"', '"'))


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, (dict, list)):
        shorten_waits(case.body)
    if case.query and is_long(case.query.get("wait_ms")):
        case.query["wait_ms"] = str(WAIT_MS)
    if case.headers and str(case.headers.get("Prefer", "")).startswith("wait="):
        case.headers["Prefer"] = "wait=0"
    if case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE:
        # The server takes null for an absent field or body. Nothing takes a list.
        if case.body is None or has_null_field(case.body):
            case.body = ["no object"]
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        if isinstance(case.body, dict):
            case.body = with_new_claim_ids(obeying_prose(case.body))
        if case.query:
            case.query.update(obeying_prose(dict(case.query)))
        if case.headers and "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = idempotency_key(case)
        if case.meta.phase.name == "fuzzing":
            name_existing_task(case)


@schemathesis.hook
def filter_body(context, body):
    """Leaves out null fields: the server takes null for an absent field, which the contract says in prose."""
    return not has_null_field(body)


claims = 0


def with_new_claim_ids(body):
    """Gives each claim a claim_id of its own: one of other queues or another worker is a 422."""
    global claims
    claim = body.get("claim", body)
    if isinstance(claim, dict) and "claim_id" in claim:
        claims += 1
        claim["claim_id"] = str(claims)
    return body


def has_null_field(value):
    if isinstance(value, dict):
        opaque = ("payload", "result", "progress", "details")
        return any(inner is None or name not in opaque and has_null_field(inner) for name, inner in value.items())
    return isinstance(value, list) and any(has_null_field(inner) for inner in value)


submits = 0


def idempotency_key(case):
    """Returns one key per body. In the stateful phase, which reads the new task next, every submit gets a new key: a
    repeated submit returns the first task, even if it has been deleted since."""
    global submits
    submits += 1
    source = repr(case.body) if case.meta.phase.name != "stateful" else f"{submits} {case.body!r}"
    return hashlib.sha256(source.encode()).hexdigest()


calls = 0


def name_existing_task(case):
    """Creates a task or a lease for every second request that needs one."""
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
    elif operation == "failTasks":
        case.body["failures"][0].update(lease(url))
    elif operation == "releaseTasks":
        case.body["releases"][0].update(lease(url))
    elif operation == "revokeLease":
        case.path_parameters["id"] = lease(url)["id"]
    elif operation == "heartbeatTasks":
        case.body["tasks"][0].update(lease(url))
    elif operation in ("getTask", "cancelTask", "runTask"):
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
    """Shortens a wait within its bounds; keeps one that is out of bounds."""
    if isinstance(value, dict):
        if type(value.get("wait_ms")) is int and is_long(value["wait_ms"]):
            value["wait_ms"] = WAIT_MS
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            shorten_waits(inner)


def obeying_prose(value):
    if isinstance(value, str):
        return value if value.isascii() else value[:WIDE_CHARACTERS]
    if isinstance(value, list):
        return [obeying_prose(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    # The content of these fields belongs to the worker, so no rule applies to it.
    opaque = ("payload", "result", "progress", "details")
    value = {name: inner if name in opaque else obeying_prose(inner) for name, inner in value.items()}
    if "run_at" in value and "delay_ms" in value:
        del value["delay_ms"]
    if isinstance(value.get("run_at"), str):
        value["run_at"] = within_10_years(value["run_at"])
    # A task must not expire before it is ready.
    if "expires_in_ms" in value:
        value.pop("run_at", None)
        value.pop("delay_ms", None)
    if isinstance(value.get("backoff"), dict):
        value["backoff"] = backoff(value["backoff"])
    return value


def within_10_years(time):
    """Moves a time beyond 10 years from now, the contract's limit, to the year 2000."""
    year = datetime.date.today().year
    if time[:4].isdecimal() and not 1 <= int(time[:4]) <= year + 9:
        return "2000" + time[4:]
    return time


def backoff(policy):
    """Keeps the fields that the backoff's kind has."""
    kind = policy.get("kind", "exponential")
    policy = {name: value for name, value in policy.items() if name in BACKOFF_FIELDS[kind]}
    if kind == "list" and not policy.get("delays_ms"):
        policy["delays_ms"] = [1000]
    if "base_ms" in policy and "max_ms" in policy:
        policy["max_ms"] = max(policy["base_ms"], policy["max_ms"])
    return policy


@schemathesis.check
def batch_items_fail_alone(context, response, case):
    """Batch items succeed or fail alone: the problem of one is in a 200."""
    list_name = BATCHES.get(case.operation.definition.raw.get("operationId"))
    if list_name is None or response.status_code != 200 or case.meta is None:
        return
    problems = [result["problem"] for result in response.json()[list_name]]
    if case.meta.generation.mode == GenerationMode.NEGATIVE:
        # A report is taken where refusing it would lose work.
        is_report = case.operation.definition.raw.get("operationId") in REPORTS
        assert is_report or any(problems), "an invalid item was accepted"
    else:
        # Positive requests may name an unknown task or lease, and an idempotency key twice.
        for problem in filter(None, problems):
            assert problem["status"] in (404, 409) or problem["code"] == "idempotency_mismatch", problem
