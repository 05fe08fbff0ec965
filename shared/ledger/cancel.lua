-- ARGV: id. Returns {outcome, state}: cancelled, requested, ended or unknown.
local function cancel(id)
  local state = read(id, 'state')
  if not state then return {'unknown', ''} end
  if state == 'queued' then
    finish(id, 'cancelled', '', '')
    return {'cancelled', 'cancelled'}
  end
  if state ~= 'running' then return {'ended', state} end
  write(id, 'cancel_requested', 1)
  return {'requested', state}
end

local before = read(ARGV[1], 'state')
for _, child in ipairs(redis.call('ZRANGE', key('children', ARGV[1]), 0, -1)) do
  cancel(child)
end
local outcome = cancel(ARGV[1])
-- The parent ended just now, with its last child.
if outcome[1] == 'ended' and before == 'running' then return {'cancelled', outcome[2]} end
return outcome
