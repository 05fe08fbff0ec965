-- ARGV: id, fence. Returns ok, cancel or lost.
local id = ARGV[1]
local state, fence, cancel, deadline = read(id, 'state', 'fence', 'cancel_requested', 'deadline')
if state ~= 'running' or fence ~= ARGV[2] then return 'lost' end
local lease_until = now_ms() + lease
write(id, 'lease_until', lease_until)
due(id, sooner(lease_until, deadline))
return cancel == '1' and 'cancel' or 'ok'
