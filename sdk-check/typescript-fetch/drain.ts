// Drains a queue with the client of openapi-generator, typescript-fetch: drain.js URL QUEUE PAYLOADS.

import { readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { Configuration, QueuesApi, ResponseError, SystemApi, TasksApi, WorkApi, ListTasksStateEnum } from "./client";

function check(holds: boolean, shown: unknown): void {
  if (!holds) throw new Error(JSON.stringify(shown));
}

async function main(url: string, queue: string, file: string): Promise<void> {
  const payloads: any[] = JSON.parse(readFileSync(file, "utf8"));
  const settings = new Configuration({ basePath: url });
  const [tasksApi, work] = [new TasksApi(settings), new WorkApi(settings)];
  const [queues, system] = [new QueuesApi(settings), new SystemApi(settings)];

  await system.getReadiness();
  for (const [n, payload] of payloads.entries()) {
    await tasksApi.submitTask({ submitRequest: { queue, payload, key: `key ${n}` } });
  }
  const { results } = await tasksApi.submitTasks({
    submitBatchRequest: {
      tasks: [
        { queue, payload: payloads[payloads.length - 1], tags: ["sdk"] },
        { queue, delayMs: 1, runAt: new Date() },
      ],
    },
  });
  check(results[0].task?.tags[0] === "sdk" && results[0].problem === null, results);
  check(results[1].task === null && results[1].problem?.code === "invalid_value", results);

  let [completed, turn, last] = [0, 0, ""];
  for (;;) {
    const claimRequest = { queues: [queue], worker: "sdk", max: 10, waitMs: 200, claimId: randomUUID() };
    const { tasks } = await work.claimTasks({ claimRequest });
    if (tasks.length === 0) break;
    const beats = tasks.map(({ id, lease }) => ({ id, lease, progress: { page: 1 } }));
    const held = await work.heartbeatTasks({ heartbeatRequest: { worker: "sdk", tasks: beats } });
    check(held.tasks.every((task) => task.problem === null && task.leaseUntil !== null), held);
    for (const { id, lease, payload } of tasks) {
      turn += 1;
      if (turn === 1) {
        await work.releaseTask({ releaseRequest: { id, lease } });
      } else if (turn === 2) {
        const error = { message: "failed once", details: payload };
        await work.failTask({ failRequest: { id, lease, error, retryInMs: 0 } });
      } else {
        await work.completeTask({ completeRequest: { id, lease, result: payload } });
        [completed, last] = [completed + 1, id];
      }
    }
  }

  const stale = await work.completeTasks({ completeBatchRequest: { completions: [{ id: last, lease: "stale" }] } });
  check(stale.results[0].problem?.code === "lease_lost", stale);
  const task = await tasksApi.getTask({ id: last });
  check(task.state === "completed" && task.finishedAt instanceof Date && task.progress.page === 1, task);
  const list = await tasksApi.listTasks({ queue, state: ListTasksStateEnum.Completed });
  check(list.tasks.length === completed, list);
  check((await queues.getQueue({ queue })).counts.completed === completed, queue);
  await system.getStats({ queue });
  await system.listWorkers();
  check((await system.getSlots({ key: "key 1" })).keySlot !== null, queue);
  try {
    await work.completeTask({ completeRequest: { id: last, lease: "stale" } });
  } catch (error) {
    check(error instanceof ResponseError, error);
    const problem = await (error as ResponseError).response.json();
    console.log(`completed ${completed}, problem ${problem.code}`);
  }
}

main(process.argv[2], process.argv[3], process.argv[4]).catch((error) => {
  console.error(error);
  process.exit(1);
});
