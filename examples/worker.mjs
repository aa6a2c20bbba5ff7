#!/usr/bin/env node
// A Slotwheel worker for Node 18 or later, without packages.
//
//     SLOTWHEEL_URL=http://127.0.0.1:8080 node examples/worker.mjs [queue]
//
// It works on several tasks at once, one in each of its lanes; the report on a task brings the lane's next one in the
// same round trip. To make it yours, change `work`.

import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { hostname } from 'node:os'

const url = (process.env.SLOTWHEEL_URL ?? 'http://127.0.0.1:8080').replace(/\/+$/, '')
const queue = process.argv[2] ?? 'default'
const worker = `node-${hostname()}-${process.pid}`
const lanes = 4
const leaseMs = 30_000
const waitMs = 20_000

// The work itself: returns the result, or throws if the attempt has failed. `signal` is aborted once the task is
// cancelled or lost, or the worker is to stop. Work that keeps the event loop busy for long keeps heartbeats from
// being sent: it belongs in a worker thread.
async function work(payload, signal) {
  const path = payload.path_base64 ? Buffer.from(payload.path_base64, 'base64') : payload.path
  const hash = createHash('sha256')
  let lines = 0
  for await (const chunk of createReadStream(path, { signal })) {
    hash.update(chunk)
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines++
  }
  return { sha256: hash.digest('hex'), lines, worker }
}

let stopping = null // when the worker was told to stop
const held = new Map() // id → { task, abort } of what is being worked on
const polls = new Set() // long polls under way
const naps = new Set() // pauses under way
let away = false // the server, as far as is known
let completed = 0

const log = (text) => console.error(`${worker}: ${text}`)

// One try. Throws if there is no answer.
async function send(path, body) {
  const claim = body.claim ?? body
  const polling = 'wait_ms' in claim
  if (polling && stopping) claim.wait_ms = 0
  const abort = new AbortController()
  const timer = setTimeout(() => abort.abort(new Error('timeout')), waitMs + 10_000)
  if (polling) polls.add(abort)
  try {
    const response = await fetch(url + path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: abort.signal,
    })
    const retryAfter = Number(response.headers.get('retry-after')) || 0
    return { status: response.status, retryAfter, text: await response.text() }
  } finally {
    clearTimeout(timer)
    polls.delete(abort)
  }
}

// Sends the same body until there is an answer: its status and, if that is 200, what it says. This is safe: the server
// answers a report or a claim that it has seen as it did the first time.
async function request(path, body) {
  for (let tries = 0; ; tries++) {
    let retryAfter = 0
    let why
    try {
      const answer = await send(path, body)
      const { status, text } = answer
      if (status < 500 && status !== 408 && status !== 429) {
        if (away) log('the server is back')
        away = false
        if (status !== 200) log(`${path} is refused: ${status} ${text}`)
        return { status, answer: status === 200 ? JSON.parse(text) : null }
      }
      retryAfter = answer.retryAfter
      why = `status ${status}`
    } catch (error) {
      why = error.cause?.code ?? error.message
    }
    if (stopping && Date.now() > stopping + 5_000) throw new ServerAway()
    // An idle connection may have been closed meanwhile: at first try again at once.
    if (tries > 0 || retryAfter) {
      const backoff = stopping ? 500 : Math.min(10_000, 500 * 2 ** tries)
      const least = retryAfter ? retryAfter * 1000 + Math.random() * 500 : 0
      await sleep(Math.max(backoff * (0.5 + Math.random() / 2), least))
    }
    if (tries > 0 && !away && !stopping) {
      away = true
      log(`${path} gets no answer (${why}); trying again until it does`)
    }
  }
}

class ServerAway extends Error {}

// A pause that a signal ends.
const sleep = (ms) =>
  new Promise((resolve) => {
    const nap = { end: () => (naps.delete(nap), clearTimeout(timer), resolve()) }
    const timer = setTimeout(nap.end, ms)
    naps.add(nap)
  })

// claim_id makes it safe to repeat the call: if the answer got lost, the next one brings the same task.
const claimRequest = () => ({
  queues: [queue],
  worker,
  lease_ms: leaseMs,
  wait_ms: waitMs,
  claim_id: randomUUID(),
})

// Waits for a task; undefined if there was none in time.
async function claim() {
  const { status, answer } = await request('/claim', claimRequest())
  if (status !== 200) process.exit(1) // wrong URL or queue: trying again would not help
  return answer.tasks[0]
}

// Works on a task and reports; returns the next task, if the report brought one.
async function perform(task) {
  const proof = { id: task.id, lease: task.lease }
  const abort = new AbortController()
  held.set(task.id, { task, abort })
  let verb, report
  try {
    const result = await work(task.payload, abort.signal)
    verb = '/complete'
    report = { ...proof, result, claim: claimRequest() }
  } catch (error) {
    if (abort.signal.aborted) {
      verb = '/release'
      report = proof
    } else {
      log(`${task.id} failed: ${error}`)
      verb = '/fail'
      report = { ...proof, error: describe(error) }
    }
  } finally {
    held.delete(task.id)
  }
  const { status, answer } = await request(verb, report)
  if (verb === '/complete') {
    if (status === 200) {
      completed++
      return answer.tasks[0]
    }
    // 404 and 409 mean: too late. Any other: the result will not do, now or later.
    if (status !== 404 && status !== 409) {
      const error = { type: 'ResultRefused', message: `the server answered ${status} to the result` }
      await request('/fail', { ...proof, error, retry: false })
    }
  }
}

// Through a Buffer, since half a surrogate pair is not JSON that the server takes.
const describe = (error) => ({
  type: error.code ?? error.name,
  message: Buffer.from(String(error.message).slice(0, 1000)).toString(),
})

// Every third of a lease, so that two beats may get lost.
async function heartbeat() {
  const beating = [...held.values()]
  if (beating.length === 0) return
  const tasks = beating.map(({ task }) => ({ id: task.id, lease: task.lease, lease_ms: leaseMs }))
  const { status, text } = await send('/heartbeat', { worker, tasks })
  if (status !== 200) return
  JSON.parse(text).tasks.forEach((beat, i) => {
    const reported = held.get(beat.id) !== beating[i] // meanwhile
    if (!reported && (beat.problem || beat.cancel_requested)) {
      log(`${beat.id} is cancelled or lost; leaving it`)
      beating[i].abort.abort()
    }
  })
}

async function lane() {
  let task
  while (!stopping) task = task ? await perform(task) : await claim()
  if (task) await request('/release', { id: task.id, lease: task.lease })
}

function stop() {
  stopping ??= Date.now()
  for (const abort of polls) abort.abort(new Error('stopping'))
  for (const { abort } of held.values()) abort.abort()
  for (const nap of naps) nap.end()
}
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
setInterval(() => heartbeat().catch(() => {}), leaseMs / 3)

log(`working on queue ${queue} at ${url}`)
const giveUp = (error) => {
  if (!(error instanceof ServerAway)) throw error
  away = true
}
await Promise.all(Array.from({ length: lanes }, () => lane().catch(giveUp)))
if (away) log('the server is away; what this worker holds comes back when its lease runs out')
log(`stopped; ${completed} tasks completed`)
process.exit(0)
