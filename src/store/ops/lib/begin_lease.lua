-- begin_lease: the part that every lease of a waiting request has in common.
--
-- A waiting request has lease_ms, worker, and claim_digest: '' without a claim id. The digest may have that of the queues
-- behind it.
--
-- defines: begin_lease
-- needs: clock, transaction, records
-- keys: claim:<digest>

-- The record of the last lease without its token, and its end in digits, which most leases of a request share.
local last_waiter, last_until, last_acquired, last_record, last_digits

-- Leases a task to the request, for as long as the request asks for, at most `max_run_ms`; 0: unlimited. `acquired` is the
-- number of the lease, and `leased_key` that of the queue. Adds to `command`, an HSET of the task, all but the state. Returns
-- the end of the lease.
local function begin_lease(command, waiter, token, max_run_ms, acquired, queue, leased_key, id)
  local lease_ms = max_run_ms > 0 and math.min(max_run_ms, waiter.lease_ms) or waiter.lease_ms
  local lease_until, claim_digest = now + lease_ms, waiter.claim_digest
  if waiter ~= last_waiter or lease_until ~= last_until or acquired ~= last_acquired then
    last_waiter, last_until, last_acquired, last_digits = waiter, lease_until, acquired, digits(lease_until)
    last_record = struct.pack(L.lease.from_lease_until, lease_until, now, 0, lease_ms, acquired, claim_digest ~= '' and 1 or 0)
      .. waiter.worker
  end
  set_field(command, F.lease, string.char(L.lease.version) .. token .. last_record)
  if claim_digest ~= '' then
    write('SADD', base .. 'claim:' .. string.sub(claim_digest, 1, 16), id)
    set_field(command, F.claim_digest, claim_digest)
  end
  zset_add(leased_key, last_digits, id)
  due_no_later(queue, lease_until)
  return lease_until
end
