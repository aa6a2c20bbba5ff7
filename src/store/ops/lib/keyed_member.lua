-- keyed_member: the members of keyed slot queues: digest of the key, seq, id.
--
-- defines: keyed_member, set_back_member
-- needs: -

local function keyed_member(key_digest, seq, id)
  return key_digest .. struct.pack('>I6', seq) .. id
end

-- Returns the member of a task that cannot be handed out. All of them stand behind all keys, like one: 2^47 is more than any seq.
local function set_back_member(seq, id)
  return string.rep('\255', 8) .. struct.pack('>I6', seq % 2 ^ 47 + 2 ^ 47) .. id
end
