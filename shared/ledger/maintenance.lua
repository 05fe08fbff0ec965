-- What the reconcilers of all workers do from time to time, and what metrics read.

-- id, fence, error (JSON). Fails a queued job that nobody will claim. Returns whether the end counts.
function operations.abandon(id, fence, error)
  local state, its_fence = read(id, 'state', 'fence')
  if state ~= 'queued' or its_fence ~= fence then return 0 end
  finish(id, 'failed', '', error)
  return 1
end

-- id, fence, queue. Gives a queued job to the workers of another queue. Returns whether it did.
function operations.reassign(id, fence, queue)
  local state, its_fence, former = read(id, 'state', 'fence', 'queue')
  if state ~= 'queued' or its_fence ~= fence then return 0 end
  redis.call('ZREM', key('ready', former), id)
  leave_lane(id)
  redis.call('SADD', key('queues'), queue)
  write(id, 'queue', queue)
  local priority, created = read(id, 'priority', 'created_at')
  redis.call('ZADD', key('ready', queue), priority * 1e13 + created, id)
  write(id, 'available_at', now)
  make_available(id)
  return 1
end

-- Deletes an ended job. Returns false where a parent that has not ended still needs it.
local function forget(id)
  local state, kind, model, submitter, parent, idempotency_key, bytes, cut =
    read(id, 'state', 'kind', 'model', 'submitter', 'parent_id', 'idempotency_key', 'bytes', 'cut')
  if parent and open((read(parent, 'state'))) then return false end
  count_job(id, 'expired')
  if idempotency_key then redis.call('DEL', key('idempotency', idempotency_key)) end
  for _, index in ipairs(indices(kind, state, model or '', submitter or '')) do redis.call('ZREM', index, id) end
  if parent then
    redis.call('ZREM', key('children', parent), id)
    -- A retry of the batch does not find this child any more.
    if state ~= 'succeeded' and not cut and read(parent, 'again_jobs') then
      increase(parent, 'again_jobs', -1)
      increase(parent, 'again_bytes', -bytes)
    end
  end
  redis.call('ZREM', key('expiries'), id)
  replace_job(id, {})
  redis.call('DEL', key('job', id), key('request', id), key('result', id), key('events', id))
  return true
end

local found

-- The members of a sorted set whose time has come.
local function past(family, limit)
  local ids = redis.call('ZRANGEBYSCORE', key(family), '-inf', now, 'LIMIT', 0, limit)
  if #ids == limit then found.more = 1 end
  return ids
end

local function look_at_queued(id)
  local available = tonumber((read(id, 'available_at')))
  if fail_if_late(id) then
    found.late = found.late + 1
  elseif available > now then
    local deadline, start_by = read(id, 'deadline', 'start_by')
    due(id, available, deadline, start_by)
  else
    make_available(id)
  end
end

local function look_at_running(id)
  local deadline, lease_until, pieces = read(id, 'deadline', 'lease_until', 'sweep')
  deadline = tonumber(deadline)
  if pieces then
    table.insert(found.swept, id)
    due(id, now + 1000)
  elseif deadline and deadline + (lease_until and grace or 0) <= now then
    found.late = found.late + 1
    fail(id, 'deadline_exceeded', 'the job did not stop in time')
  elseif not lease_until then
    due(id, now + parked, deadline) -- its children move it on
  else
    redis.call('ZREM', key('due'), id)
    if deadline then due(id, deadline + grace) end
  end
end

-- While nobody reconciled, nobody could renew leases either: Redis stood still, its clock stepped, or all
-- workers were away. Each lease gets its time once more.
local function extend_leases()
  local pulse = tonumber(redis.call('GET', key('pulse')) or now)
  redis.call('SET', key('pulse'), now)
  if now - pulse > longest_silence or pulse - now > 1000 then
    redis.call('SET', key('amnesty'), now + lease, 'PX', math.ceil(2 * lease))
  end
  -- A clock that stepped back would let them last for as long as it stepped.
  local ahead = redis.call('ZRANGEBYSCORE', key('leases'), now + 2 * lease, '+inf', 'LIMIT', 0, 500)
  for _, id in ipairs(ahead) do
    write(id, 'lease_until', now + lease)
    redis.call('ZADD', key('leases'), now + lease, id)
  end
  local amnesty = tonumber(redis.call('GET', key('amnesty')) or 0)
  return amnesty > now and amnesty <= now + lease
end

local function look_at_leases(limit)
  if extend_leases() then return end
  for _, id in ipairs(past('leases', limit)) do
    if read(id, 'state') ~= 'running' then
      redis.call('ZREM', key('leases'), id)
    else
      found.lost = found.lost + 1
      local outcome = lose(id)
      if outcome == 'crashed' then found.crashed = found.crashed + 1 end
      if outcome == 'late' then found.late = found.late + 1 end
    end
  end
end

local function look_at_due(limit)
  for _, id in ipairs(past('due', limit)) do
    local state = read(id, 'state')
    if state == 'queued' then
      look_at_queued(id)
    elseif state == 'running' then
      look_at_running(id)
    else
      redis.call('ZREM', key('due'), id)
    end
  end
end

local function look_at_expiries(limit)
  for _, id in ipairs(past('expiries', limit)) do
    if not exists(id) then
      redis.call('ZREM', key('expiries'), id)
    elseif forget(id) then
      found.expired = found.expired + 1
    else
      redis.call('ZADD', key('expiries'), now + retention, id)
    end
  end
end

-- Memory is for jobs that have not ended: when little is left, those that ended first are forgotten early.
local function make_room(limit)
  -- A user without the right to ask has no limit that we know of.
  local memory = redis.pcall('INFO', 'memory')
  if type(memory) ~= 'string' then return 0 end
  local used = tonumber(memory:match('used_memory:(%d+)'))
  local most = tonumber(memory:match('maxmemory:(%d+)') or 0)
  if most == 0 or used <= crowded * most then return 0 end
  local forgotten = 0
  local last = now + retention - spared
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('expiries'), '-inf', last, 'LIMIT', 0, scan)) do
    if forgotten == limit then break end
    if forget(id) then forgotten = forgotten + 1 end
  end
  return forgotten
end

-- Queues of one host disappear when they are empty; so does what is known of workers that are gone.
local function tidy()
  for _, queue in ipairs(redis.call('SMEMBERS', key('queues'))) do
    touched[queue], touched[queue .. ':alone'] = true, true
    if string.find(queue, '.', 1, true) and redis.call('EXISTS', key('ready', queue)) == 0 then
      redis.call('SREM', key('queues'), queue)
      redis.call('HDEL', key('drain'), queue .. ':last', queue .. ':gap')
      redis.call('HDEL', key('turns'), queue, queue .. ':alone')
      redis.call('HDEL', key('available'), queue, queue .. ':alone')
    end
  end
  for _, worker in ipairs(redis.call('SMEMBERS', key('warm_workers'))) do
    if redis.call('EXISTS', key('warm', worker)) == 0 then redis.call('SREM', key('warm_workers'), worker) end
  end
end

-- The most jobs to look at, of each sort.
-- Returns {lost leases, crashed, past deadline, expired, forgotten for want of memory}, the parents whose sweeps
-- the caller is to continue, and whether there is more to look at.
function operations.reconcile(limit)
  limit = tonumber(limit)
  found = {lost = 0, crashed = 0, late = 0, expired = 0, swept = {}, more = 0}
  look_at_leases(limit)
  look_at_due(limit)
  look_at_expiries(limit)
  tidy()
  local forgotten = make_room(limit)
  if forgotten == limit then found.more = 1 end
  return {{found.lost, found.crashed, found.late, found.expired, forgotten}, found.swept, found.more}
end

-- All that counts.py shows, at one moment.
-- Returns {events, runs, queues, request bytes, jobs that wait by service}; of a queue {name, jobs queued, milliseconds since the oldest came}.
function operations.snapshot()
  local queues = {}
  for _, name in ipairs(redis.call('SMEMBERS', key('queues'))) do
    local ready, oldest = key('ready', name), now + 1
    -- Ordered by priority first, so each priority has an oldest of its own.
    for priority = 0, 9 do
      local from = string.format('%.0f', priority * 1e13)
      local to = string.format('(%.0f', (priority + 1) * 1e13)
      local first = redis.call('ZRANGEBYSCORE', ready, from, to, 'WITHSCORES', 'LIMIT', 0, 1)
      if first[2] then oldest = math.min(oldest, first[2] - priority * 1e13) end
    end
    table.insert(queues, {name, redis.call('ZCARD', ready), now - oldest})
  end
  local bytes = tonumber(redis.call('GET', key('request_bytes')) or 0)
  return {redis.call('HGETALL', key('counts')), redis.call('HGETALL', key('runs')), queues, bytes,
    redis.call('HGETALL', key('outages'))}
end
