// BullMQ as its users run it at its best: one process that adds jobs in bulk and processes them. Arguments: a port on
// 127.0.0.1 to listen on, and where its Redis is (a unix socket's path or an address). The benchmark asks in lines,
// and each is answered with a line:
//
//   start BATCH BYTES    begins to add batches of jobs with so many bytes of data, and to process them
//   count                how many jobs it has processed so far
//   stop                 adds no more, processes the rest, and says what became of all: JSON
//
// Every job processed must be one that was added, and be processed once; else `stop` tells of it.

const { createServer } = require("node:net");
const { createInterface } = require("node:readline");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

// The best of those tried, by tasks per second of processor time; what they are hardly matters from ten jobs at once
// on, and automatic pipelining (ioredis) costs more than it saves.
const CONCURRENCY = 50;
const ADDERS = 2;

const [port, address] = process.argv.slice(2);
const connect = () => new Redis(address, { maxRetriesPerRequest: null });
const queue = new Queue("bench", {
  connection: connect(),
  // Processed jobs go at once: the least work that it can be asked for.
  defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
});

// Numbers of the jobs that were added and have not been processed.
const underWay = new Set();
let added = 0;
let processed = 0;
let wrong = 0;
let room = () => {};

const worker = new Worker(
  "bench",
  async (job) => {
    if (!underWay.delete(job.data.n)) wrong += 1;
  },
  { connection: connect(), concurrency: CONCURRENCY },
);
worker.on("completed", () => {
  processed += 1;
  room();
});
worker.on("failed", () => {
  wrong += 1;
});
worker.on("error", fail);

function fail(error) {
  console.error(error);
  process.exit(1);
}

let adding = false;
let adders = [];

function start(batch, bytes) {
  // Twice as many as are processed at once or added at once: the worker never starves, and Redis holds few.
  const most = 2 * Math.max(CONCURRENCY, ADDERS * batch);
  const waiting = [];
  room = () => {
    while (waiting.length > 0 && added - processed < most) waiting.shift()();
  };
  const add = async () => {
    while (adding) {
      if (added - processed >= most) await new Promise((resume) => waiting.push(resume));
      const jobs = Array.from({ length: batch }, () => {
        underWay.add(added);
        added += 1;
        return { name: "task", data: data(added - 1, bytes) };
      });
      await queue.addBulk(jobs);
    }
  };
  adding = true;
  adders = Array.from({ length: ADDERS }, add);
}

async function stop() {
  adding = false;
  await Promise.all(adders);
  while (processed < added && wrong === 0) await new Promise((resume) => setTimeout(resume, 1));
  const counts = await queue.getJobCounts("waiting", "active", "failed", "delayed");
  const left = Object.values(counts).reduce((sum, count) => sum + count, underWay.size);
  return JSON.stringify({ added, processed, left, wrong });
}

// An object whose JSON has so many bytes.
function data(n, bytes) {
  const bare = `{"n":${n},"text":""}`.length;
  return { n, text: "x".repeat(Math.max(0, bytes - bare)) };
}

async function answer(line) {
  const [verb, batch, bytes] = line.split(" ");
  if (verb === "start") return start(Number(batch), Number(bytes)), "started";
  if (verb === "count") return String(processed);
  return stop();
}

async function main() {
  await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);
  createServer(async (socket) => {
    for await (const line of createInterface({ input: socket })) socket.write(`${await answer(line)}\r\n`);
  }).listen(Number(port), "127.0.0.1");
}

main().catch(fail);
