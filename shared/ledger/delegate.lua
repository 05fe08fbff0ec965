-- A running job makes a child, or takes one that it has, and waits for the child's end.
-- ARGV: id, fence, the child's id, the child if it is new (JSON) or ''.
-- Returns whether the job is left: it waits, goes on at once, or was cancelled meanwhile.
local id, child = ARGV[1], ARGV[3]
local state, fence, lease_until, awaits, cancelled =
  read(id, 'state', 'fence', 'lease_until', 'awaits', 'cancel_requested')
if fence ~= ARGV[2] then return 0 end
-- The reply to this very call was lost on its way, and it is asked again.
if awaits == child and lease_until == '' then return 1 end
if state ~= 'running' then return 0 end

if cancelled == '1' then
  finish(id, 'cancelled', '', '')
  return 1
end
local its_state = read(child, 'state')
if ARGV[4] ~= '' then
  put(cjson.decode(ARGV[4]))
  enqueue(child, now)
elseif its_state == 'failed' or its_state == 'cancelled' then
  reset(child)
  enqueue(child, now)
end
wait(id, child)
-- It ended by itself just now, or was forgotten: there is nothing to wait for.
local left = read(child, 'state')
if not left or left == 'succeeded' then settle(id, child) end
return 1
