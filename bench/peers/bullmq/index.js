// BullMQ as its users run it at its best: one process that adds jobs in bulk and processes them, over a
// Redis whose socket is the first argument. The benchmark asks with a line on standard input and gets a
// line of JSON back:
//
//   life SECONDS BATCH BYTES    adds batches and processes them for so long, until all are processed
//
// Every job processed must be one that was added, and be processed once; else the line tells of it.

const { createInterface } = require("node:readline");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const [socket, settings] = process.argv.slice(2);
// The defaults were the best of those tried: see the notes of sides/bullmq.rs.
const { concurrency, workers, adders, pipelined } = {
  concurrency: 50,
  workers: 1,
  adders: 2,
  pipelined: false,
  ...JSON.parse(settings ?? "{}"),
};

const connect = () => new Redis({ path: socket, maxRetriesPerRequest: null, enableAutoPipelining: pipelined });

let added = 0;
let processed = 0;
let seen = new Map();
let wrong = 0;
let wake = () => {};

const process_one = async (job) => {
  if (seen.get(job.data.id) !== false) wrong += 1;
  seen.delete(job.data.id);
};

const queue = new Queue("bench", {
  connection: connect(),
  // Processed jobs go at once: the least work that it can be asked for.
  defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
});
const pool = Array.from({ length: workers }, () => {
  const worker = new Worker("bench", process_one, { connection: connect(), concurrency });
  worker.on("completed", () => {
    processed += 1;
    wake();
  });
  worker.on("failed", () => {
    wrong += 1;
  });
  worker.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  return worker;
});

async function life(seconds, batch, bytes) {
  const [addedBefore, processedBefore] = [added, processed];
  const start = performance.now();
  const end = start + seconds * 1000;
  // As many under way as wait for or are with the workers twice over: they never starve, and Redis holds few.
  const room = Math.max(2 * batch * adders, 2 * concurrency * workers);
  const waiting = [];
  wake = () => {
    while (waiting.length > 0 && added - processed < room) waiting.shift()();
  };
  const adder = async () => {
    while (performance.now() < end) {
      if (added - processed >= room) await new Promise((resume) => waiting.push(resume));
      const jobs = [];
      for (let i = 0; i < batch; i += 1) {
        const id = added;
        added += 1;
        seen.set(id, false);
        jobs.push({ name: "task", data: payload(id, bytes) });
      }
      await queue.addBulk(jobs);
    }
  };
  await Promise.all(Array.from({ length: adders }, adder));
  while (processed < added) await new Promise((resume) => setTimeout(resume, 1));
  const counts = await queue.getJobCounts("waiting", "active", "failed", "delayed");
  return {
    added: added - addedBefore,
    processed: processed - processedBefore,
    left: Object.values(counts).reduce((sum, count) => sum + count, 0),
    wrong,
    seconds: (performance.now() - start) / 1000,
  };
}

// An object whose JSON is of so many bytes.
function payload(id, bytes) {
  const bare = `{"id":${id},"text":""}`.length;
  return { id, text: "x".repeat(Math.max(0, bytes - bare)) };
}

async function main() {
  await Promise.all([queue.waitUntilReady(), ...pool.map((worker) => worker.waitUntilReady())]);
  console.log(JSON.stringify({ ready: true }));
  for await (const line of createInterface({ input: process.stdin })) {
    const [, seconds, batch, bytes] = line.split(" ");
    console.log(JSON.stringify(await life(Number(seconds), Number(batch), Number(bytes))));
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
