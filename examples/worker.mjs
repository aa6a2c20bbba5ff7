#!/usr/bin/env node
// A Slotwheel worker for Node 18 or later, without packages.
//
//     SLOTWHEEL_URL=http://127.0.0.1:8080 node examples/worker.mjs [queue]
//
// It runs `concurrency` tasks at once. The completion of a task also claims the next one. To make it yours, change
// `work`.

import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { hostname } from 'node:os'

const url = (process.env.SLOTWHEEL_URL ?? 'http://127.0.0.1:8080').replace(/\/+$/, '')
const queue = process.argv[2] ?? 'default'
const worker = `node-${hostname()}-${process.pid}`
const concurrency = 4
const leaseMs = 30_000
const waitMs = 20_000

// The work itself: returns the result, or throws if the attempt has failed. `signal` is aborted if the task is
// cancelled, its lease is lost, or the worker stops. Work that blocks the event loop delays heartbeats: run it in a
// worker thread.
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

let stopping = null // time of the signal to stop
const held = new Map() // id → { task, abort } of tasks in work
const polls = new Set() // long polls in progress
const naps = new Set() // pauses in progress
let unavailable = false // whether requests to the server fail
let completed = 0

const log = (text) => console.error(`${worker}: ${text}`)

// Sends a request once. Throws if there is no response.
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

// Repeats a request until it gets a response. Returns the status and, if that is 200, the body. Repeating is safe: the
// server answers a repeated report or claim as it did the first time.
async function request(path, body) {
  for (let tries = 0; ; tries++) {
    let retryAfter = 0
    let reason
    try {
      const response = await send(path, body)
      const { status, text } = response
      if (status < 500 && status !== 408 && status !== 429) {
        if (unavailable) log('the server is available again')
        unavailable = false
        if (status !== 200) log(`${path} rejected: ${status} ${text}`)
        return { status, body: status === 200 ? JSON.parse(text) : null }
      }
      retryAfter = response.retryAfter
      reason = `status ${status}`
    } catch (error) {
      reason = error.cause?.code ?? error.message
    }
    if (stopping && Date.now() > stopping + 5_000) throw new ServerUnavailable()
    // The server may have closed an idle connection: repeat the first time without a pause.
    if (tries > 0 || retryAfter) {
      const backoff = stopping ? 500 : Math.min(10_000, 500 * 2 ** tries)
      const least = retryAfter ? retryAfter * 1000 + Math.random() * 500 : 0
      await sleep(Math.max(backoff * (0.5 + Math.random() / 2), least))
    }
    if (tries > 0 && !unavailable && !stopping) {
      unavailable = true
      log(`${path} failed (${reason}); repeating it`)
    }
  }
}

class ServerUnavailable extends Error {}

// A pause that a signal ends.
const sleep = (ms) =>
  new Promise((resolve) => {
    const nap = { end: () => (naps.delete(nap), clearTimeout(timer), resolve()) }
    const timer = setTimeout(nap.end, ms)
    naps.add(nap)
  })

// claim_id makes the claim safe to repeat: if a response is lost, the next one has the same task.
const claimRequest = () => ({
  queues: [queue],
  worker,
  concurrency,
  lease_ms: leaseMs,
  wait_ms: waitMs,
  claim_id: randomUUID(),
})

// Claims a task; undefined if none was ready in time.
async function claim() {
  const { status, body } = await request('/claim', claimRequest())
  if (status !== 200) process.exit(1) // wrong URL or queue: repeating would not help
  return body.tasks[0]
}

// Works on a task and reports its outcome. Returns the next task, if the completion claimed one.
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
  const { status, body } = await request(verb, report)
  if (verb === '/complete') {
    if (status === 200) {
      completed++
      return body.tasks[0]
    }
    // 404 and 409: the report is too late. Any other status: the server rejects this result.
    if (status !== 404 && status !== 409) {
      const error = { type: 'ResultRejected', message: `the server rejected the result: ${status}` }
      await request('/fail', { ...proof, error, retry: false })
    }
  }
}

// A Buffer replaces unpaired surrogates, which the server rejects.
const describe = (error) => ({
  type: error.code ?? error.name,
  message: Buffer.from(String(error.message).slice(0, 1000)).toString(),
})

// Runs every third of a lease, so that two heartbeats may be lost.
async function heartbeat() {
  const leased = [...held.values()]
  if (leased.length === 0) return
  const tasks = leased.map(({ task }) => ({ id: task.id, lease: task.lease, lease_ms: leaseMs }))
  const { status, text } = await send('/heartbeat', { worker, tasks })
  if (status !== 200) return
  JSON.parse(text).tasks.forEach((result, i) => {
    const reported = held.get(result.id) !== leased[i] // since the heartbeat was sent
    if (!reported && (result.problem || result.cancel_requested)) {
      log(`${result.id} is cancelled or its lease is lost; abandoning it`)
      leased[i].abort.abort()
    }
  })
}

async function runTasks() {
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

log(`claiming from queue ${queue} at ${url}`)
const giveUp = (error) => {
  if (!(error instanceof ServerUnavailable)) throw error
  unavailable = true
}
await Promise.all(Array.from({ length: concurrency }, () => runTasks().catch(giveUp)))
if (unavailable) log('the server is unavailable; the tasks of this worker return when their leases expire')
log(`stopped; ${completed} tasks completed`)
process.exit(0)
