-- Looks at the jobs whose time has come. ARGV: limit.
-- Returns {lost leases, crashed, past deadline, expired}.
local limit = tonumber(ARGV[1])
local lost, crashed, late, expired = 0, 0, 0, 0

local function forget(id)
  local state, kind, model, submitter, parent, idempotency_key =
    read(id, 'state', 'kind', 'model', 'submitter', 'parent_id', 'idempotency_key')
  if idempotency_key and idempotency_key ~= '' then
    redis.call('DEL', key('idempotency', idempotency_key))
  end
  unindex(id, 'state', state)
  unindex(id, 'kind', kind)
  unindex(id, 'model', model)
  unindex(id, 'submitter', submitter)
  if parent and parent ~= '' then redis.call('ZREM', key('children', parent), id) end
  redis.call('ZREM', key('jobs'), id)
  redis.call('ZREM', key('due'), id)
  redis.call('DEL', key('job', id), key('events', id))
end

local function look_at_queued(id)
  local available = tonumber((read(id, 'available_at')))
  if give_up(id) then
    late = late + 1
  elseif available > now then
    wake(id, available)
  else
    look_after(id)
  end
end

local function look_at_running(id)
  local deadline, lease_until = read(id, 'deadline', 'lease_until')
  deadline, lease_until = tonumber(deadline), tonumber(lease_until)
  if not lease_until then
    due(id, now + parked) -- its children move it on
  elseif lease_until <= now then
    lost = lost + 1
    local outcome = lose(id)
    if outcome == 'crashed' then crashed = crashed + 1 end
    if outcome == 'late' then late = late + 1 end
  elseif deadline and deadline + grace <= now then
    late = late + 1
    fail(id, 'deadline_exceeded', 'the job did not stop in time')
  else
    due(id, sooner(lease_until, deadline and deadline + grace))
  end
end

local function look_at_ended(id)
  local parent = read(id, 'parent_id')
  if parent and open(read(parent, 'state')) then
    due(id, now + retention) -- the parent still asks for its result
  else
    expired = expired + 1
    count_job(id, 'expired')
    forget(id)
  end
end

-- What has ended comes last: by then it is known which parents ended in this very round.
local over = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('due'), '-inf', now, 'LIMIT', 0, limit)) do
  local state = read(id, 'state')
  if not state then
    redis.call('ZREM', key('due'), id)
  elseif state == 'queued' then
    look_at_queued(id)
  elseif state == 'running' then
    look_at_running(id)
  else
    table.insert(over, id)
  end
end
for _, id in ipairs(over) do look_at_ended(id) end
return {lost, crashed, late, expired}
