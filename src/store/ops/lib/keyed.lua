-- keyed: begins the function that defines what only tasks with a dedupe key need; submit_keyed ends it. Most calls have no
-- such task, and a script pays for each function that it defines.
--
-- defines: define_submit_keyed
local function define_submit_keyed(create)
