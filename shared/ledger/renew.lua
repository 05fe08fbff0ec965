-- ARGV: id, fence. Returns ok, cancel, late or lost.
local id = ARGV[1]
local state, fence, cancel, deadline = read(id, 'state', 'fence', 'cancel_requested', 'deadline')
if state ~= 'running' or fence ~= ARGV[2] then return 'lost' end
local lease_until = now + lease
write(id, 'lease_until', lease_until)
due(id, sooner(lease_until, deadline))
if cancel == '1' then return 'cancel' end
if deadline and tonumber(deadline) <= now then return 'late' end
return 'ok'
