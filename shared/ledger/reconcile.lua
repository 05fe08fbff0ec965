-- Looks at the jobs whose time has come. ARGV: limit.
-- Returns {lost leases, crashed, past deadline, expired, forgotten for want of memory}.
local limit = tonumber(ARGV[1])
local lost, crashed, late, expired = 0, 0, 0, 0

-- Returns whether it is forgotten: a parent still asks for its parts' results.
local function forget(id)
  local state, kind, model, submitter, parent, idempotency_key =
    read(id, 'state', 'kind', 'model', 'submitter', 'parent_id', 'idempotency_key')
  if parent and open(read(parent, 'state')) then return false end
  count_job(id, 'expired')
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
  return true
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
  if forget(id) then expired = expired + 1 else due(id, now + retention) end
end

-- Memory is for what has not ended: when little is left, what ended first goes ahead of its time.
local function make_room()
  local memory = redis.call('INFO', 'memory')
  local used = tonumber(memory:match('used_memory:(%d+)'))
  local most = tonumber(memory:match('maxmemory:(%d+)'))
  if most == 0 or used <= crowded * most then return 0 end
  -- In the order of their ends. Before them stand those that are open, and those that go soon.
  local first, last = now + parked, now + retention - spared
  local forgotten = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('due'), first, last, 'LIMIT', 0, scan)) do
    if forgotten == limit then break end
    if ended[read(id, 'state')] and forget(id) then forgotten = forgotten + 1 end
  end
  return forgotten
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
return {lost, crashed, late, expired, make_room()}
