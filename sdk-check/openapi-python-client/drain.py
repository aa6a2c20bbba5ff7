"""Drains a queue with the client of openapi-python-client: drain.py URL QUEUE PAYLOADS."""

import datetime
import json
import sys
import uuid

from opc import Client
from opc import models as m
from opc.api.queues import get_queue
from opc.api.system import get_readiness, get_slots, get_stats, list_workers
from opc.api.tasks import get_task, list_tasks, submit_task, submit_tasks
from opc.api.work import claim_tasks, complete_task, complete_tasks, fail_task, heartbeat_tasks, release_task

url, queue, file = sys.argv[1:]
payloads = json.load(open(file))
client = Client(base_url=url, timeout=30)


def done(response, kind):
    assert isinstance(response, kind), response
    return response


done(get_readiness.sync(client=client), m.Readiness)
for n, payload in enumerate(payloads):
    done(submit_task.sync(client=client, body=m.SubmitRequest(queue=queue, payload=payload, key=f"key {n}")), m.SubmittedTask)
batch = m.SubmitBatchRequest(tasks=[
    m.SubmitBatchItem(queue=queue, payload=payloads[-1], tags=["sdk"]),
    m.SubmitBatchItem(queue=queue, delay_ms=1, run_at=datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC)),
])
results = done(submit_tasks.sync(client=client, body=batch), m.SubmitBatchResponse).results
assert results[0].task.tags == ["sdk"] and results[0].problem is None, results
assert results[1].task is None and results[1].problem.code == "invalid_value", results

completed = turn = 0
while True:
    claim = m.ClaimRequest(queues=[queue], worker="sdk", max_=10, wait_ms=200, claim_id=str(uuid.uuid4()))
    tasks = done(claim_tasks.sync(client=client, body=claim), m.ClaimResponse).tasks
    if not tasks:
        break
    beat = m.HeartbeatRequest(worker="sdk", tasks=[m.HeartbeatItem(id=task.id, lease=task.lease, progress={"page": 1}) for task in tasks])
    for held in done(heartbeat_tasks.sync(client=client, body=beat), m.HeartbeatResponse).tasks:
        assert held.problem is None and held.lease_until, held
    for task in tasks:
        turn += 1
        if turn == 1:
            done(release_task.sync(client=client, body=m.ReleaseRequest(id=task.id, lease=task.lease)), m.ReturnedTask)
        elif turn == 2:
            error = m.ReportedError(message="failed once", details=task.payload)
            done(fail_task.sync(client=client, body=m.FailRequest(id=task.id, lease=task.lease, error=error, retry_in_ms=0)), m.ReturnedTask)
        else:
            done(complete_task.sync(client=client, body=m.CompleteRequest(id=task.id, lease=task.lease, result=task.payload)), m.CompleteResponse)
            completed += 1
            last = task.id

stale = m.CompleteBatchRequest(completions=[m.Completion(id=last, lease="stale")])
assert done(complete_tasks.sync(client=client, body=stale), m.CompleteBatchResponse).results[0].problem.code == "lease_lost"
task = done(get_task.sync(last, client=client), m.Task)
assert task.state == "completed" and task.finished_at and task.progress == {"page": 1}, task
assert len(done(list_tasks.sync(client=client, queue=queue, state=m.ListTasksState.COMPLETED), m.TaskList).tasks) == completed
assert done(get_queue.sync(queue, client=client), m.Queue).counts.completed == completed
done(get_stats.sync(client=client, queue=queue), m.Stats)
done(list_workers.sync(client=client), m.WorkerList)
assert done(get_slots.sync(client=client, key="key 1"), m.Slots).key_slot.slot >= 0
problem = done(complete_task.sync(client=client, body=m.CompleteRequest(id=last, lease="stale")), m.Problem)
print(f"completed {completed}, problem {problem.code}")
