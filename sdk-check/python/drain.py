"""Drains a queue with the client of openapi-generator, python: drain.py URL QUEUE PAYLOADS."""

import json
import sys
import uuid

import openapi_client as m

url, queue, file = sys.argv[1:]
payloads = json.load(open(file))
client = m.ApiClient(m.Configuration(host=url))
tasks_api, work, queues, system = m.TasksApi(client), m.WorkApi(client), m.QueuesApi(client), m.SystemApi(client)

assert system.get_readiness().status
for n, payload in enumerate(payloads):
    tasks_api.submit_task(m.SubmitRequest(queue=queue, payload=payload, key=f"key {n}"))
batch = m.SubmitBatchRequest(tasks=[
    m.SubmitBatchItem(queue=queue, payload=payloads[-1], tags=["sdk"]),
    m.SubmitBatchItem(queue=queue, delay_ms=1, run_at="2026-03-02T09:15:04Z"),
])
results = tasks_api.submit_tasks(batch).results
assert results[0].task.tags == ["sdk"] and results[0].problem is None, results
assert results[1].task is None and results[1].problem.code == "invalid_value", results

completed = turn = 0
while True:
    claim = m.ClaimRequest(queues=[queue], worker="sdk", max=10, wait_ms=200, claim_id=str(uuid.uuid4()))
    tasks = work.claim_tasks(claim).tasks
    if not tasks:
        break
    beat = [m.HeartbeatItem(id=task.id, lease=task.lease, progress={"page": 1}) for task in tasks]
    for held in work.heartbeat_tasks(m.HeartbeatRequest(worker="sdk", tasks=beat)).tasks:
        assert held.problem is None and held.lease_until, held
    for task in tasks:
        turn += 1
        if turn == 1:
            work.release_task(m.ReleaseRequest(id=task.id, lease=task.lease))
        elif turn == 2:
            error = m.ReportedError(message="failed once", details=task.payload)
            work.fail_task(m.FailRequest(id=task.id, lease=task.lease, error=error, retry_in_ms=0))
        else:
            work.complete_task(m.CompleteRequest(id=task.id, lease=task.lease, result=task.payload))
            completed += 1
            last = task.id

stale = m.CompleteBatchRequest(completions=[m.Completion(id=last, lease="stale")])
assert work.complete_tasks(stale).results[0].problem.code == "lease_lost"
task = tasks_api.get_task(last)
assert task.state == "completed" and task.finished_at and task.progress == {"page": 1}, task
assert len(tasks_api.list_tasks(queue=queue, state="completed").tasks) == completed
assert queues.get_queue(queue).counts.completed == completed
system.get_stats(queue=queue)
system.list_workers()
assert system.get_slots(key="key 1").key_slot.slot >= 0
try:
    work.complete_task(m.CompleteRequest(id=last, lease="stale"))
    raise AssertionError("a stale lease was accepted")
except m.exceptions.ConflictException as error:
    print(f"completed {completed}, problem {error.data.code}")
