local ended = {succeeded = true, failed = true, cancelled = true}

-- What a change of state is called where changes are counted; nil for those counted where they are made.
local function change(from, to)
  if not from then return 'accepted' end
  if ended[to] then return to end
  if ended[from] then return 'revived' end
end

local function open(state)
  return (state and not ended[state]) or false
end

local function add_queued(submitter, by)
  if not submitter or submitter == '' then return end
  if redis.call('HINCRBY', key('queued_by'), submitter, by) == 0 then
    redis.call('HDEL', key('queued_by'), submitter)
  end
end

-- The only place where a state changes.
local function move(id, to)
  local from, kind, queue, priority, created, attempts, submitter =
    read(id, 'state', 'kind', 'queue', 'priority', 'created_at', 'attempts', 'submitter')
  if from then unindex(id, 'state', from) end
  index(id, 'state', to)
  if from == 'queued' then
    redis.call('ZREM', key('ready', queue), id)
    add_queued(submitter, -1)
    step_out(id)
    if to == 'running' then observe_claim(queue) end
  end
  if to == 'queued' then
    redis.call('ZADD', key('ready', queue), priority * 1e13 + created, id)
    add_queued(submitter, 1)
  end
  if open(from) ~= open(to) then
    local bytes = redis.call('HSTRLEN', key('job', id), 'request')
    redis.call('INCRBY', key('request_bytes'), open(to) and bytes or -bytes)
  end
  local event = change(from, to)
  if event then count(event, kind, queue) end
  if from == 'running' then end_run(id) end
  write(id, 'state', to)
  local outage = to == 'queued' and outage_of(id)
  emit(id, 'state', cjson.encode({
    state = to,
    attempt = tonumber(attempts),
    waiting_for = outage and {service = outage.service, reason = outage.reason} or nil,
  }))
end

local function enqueue(id, available)
  write(id, 'available_at', available, 'lease_until', '', 'owner', '')
  move(id, 'queued')
  if available > now then wake(id, available) else line_up(id) end
end

local settle

-- The only place where a job ends. `result` and `error` are JSON or ''.
local function finish(id, state, result, error)
  write(id, 'finished_at', now, 'lease_until', '', 'result', result, 'error', error)
  end_outage(id)
  move(id, state)
  due(id, now + retention)
  emit(id, 'done', cjson.encode({state = state}))
  local parent = read(id, 'parent_id')
  if parent and parent ~= '' then settle(parent, id) end
end

local function fail(id, code, detail)
  finish(id, 'failed', '', cjson.encode({code = code, detail = detail, retryable = false}))
end

-- A worker was lost while it ran the job. Returns what became of the job.
local function lose(id)
  local crashes = redis.call('HINCRBY', key('job', id), 'crashes', 1)
  local cancel, deadline = read(id, 'cancel_requested', 'deadline')
  count_job(id, 'lost')
  if cancel == '1' then
    finish(id, 'cancelled', '', '')
    return 'cancelled'
  elseif deadline and tonumber(deadline) <= now then
    fail(id, 'deadline_exceeded', 'the deadline passed while the job ran')
    return 'late'
  elseif crashes >= max_crashes then
    count_job(id, 'crashed')
    fail(id, 'crashed', string.format('the worker was lost %d times while it ran this job', crashes))
    return 'crashed'
  end
  enqueue(id, now + backoff * (crashes - 1))
  return 'queued'
end

-- Fails a queued job whose time is over. Returns whether it did.
local function give_up(id)
  local deadline, start_by = read(id, 'deadline', 'start_by')
  if deadline and tonumber(deadline) <= now then
    local outage = outage_of(id)
    local where = outage and 'while the job waited for ' .. outage.service or 'in the queue'
    fail(id, 'deadline_exceeded', 'the deadline passed ' .. where)
  elseif (tonumber(start_by or '') or now + 1) <= now then
    fail(id, 'start_deadline_exceeded', 'no worker was free in the time within which it was to start')
  else
    return false
  end
  return true
end

-- From now on; a part has no longer than the job that waits for it.
local function set_deadlines(id)
  local lifetime, start_within, parent = read(id, 'lifetime', 'start_within', 'parent_id')
  local longest = parent and read(parent, 'deadline')
  local deadline = sooner(lifetime and now + lifetime or math.huge, longest or nil)
  if deadline < math.huge then write(id, 'deadline', deadline) end
  if start_within then write(id, 'start_by', now + start_within) end
end

-- Writes a new job's fields down; it has no state yet.
local function put(job)
  local id = job.id
  local fields = {'created_at', now, 'attempts', 0, 'crashes', 0, 'fence', 0}
  for field, value in pairs(job) do
    table.insert(fields, field)
    table.insert(fields, value)
  end
  write(id, unpack(fields))
  if job.lifetime or job.start_within or job.parent_id then set_deadlines(id) end
  redis.call('ZADD', key('jobs'), 0, id)
  index(id, 'kind', job.kind)
  index(id, 'model', job.model)
  index(id, 'submitter', job.submitter)
  if job.queue ~= '' then redis.call('SADD', key('queues'), job.queue) end
  if job.parent_id then redis.call('ZADD', key('children', job.parent_id), 0, id) end
end

-- A job that runs without a lease waits: a batch for all its children, a job with a queue for the
-- one that it awaits. The end of the last, or of that one, moves it on.
local function wait(id, awaits)
  end_run(id)
  end_outage(id)
  write(id, 'awaits', awaits, 'lease_until', '', 'owner', '')
  due(id, now + parked)
end

-- Makes an ended job as it was when it was new, but for its fence.
local function reset(id)
  write(id, 'attempts', 0, 'crashes', 0, 'error', '', 'result', '', 'progress', '', 'farthest', '',
    'awaits', '', 'finished_at', '', 'started_at', '', 'cancel_requested', 0)
  set_deadlines(id)
  redis.call('DEL', key('events', id))
end
