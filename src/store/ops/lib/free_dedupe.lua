-- free_dedupe: frees the dedupe keys of tasks that no longer hold them.
--
-- defines: free_dedupe
-- needs: transaction, dedupe

-- Frees the dedupe key of a task that holds one.
local function free_dedupe(task)
  local digest = task[F.dedupe_digest]
  if not digest or digest == '' then return end
  local key, holder = read_dedupe(task[F.queue], digest)
  if holder == task.id then write_last('DEL', key) end
end
