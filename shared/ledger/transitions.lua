-- Changes of a job's state: queued, running, ended; and outages, for which a job waits.

-- ── outages ─────────────────────────────────────────────────────────────────
-- `waiting_for` is a JSON object: the service, since when it has not answered, the last reason, the number
-- of tries, and the time in which these moved bytes. A job that awaits such a child shows a copy of it.

-- Bytes move while the reports of a job's run follow each other within this time.
local moving = 5000

local function outage_of(id)
  local text = read(id, 'waiting_for')
  return text and cjson.decode(text) or nil
end

local function count_waiting(service, by)
  if redis.call('HINCRBY', key('outages'), service, by) == 0 then
    redis.call('HDEL', key('outages'), service)
  end
end

local function awaiting_parent(id)
  local parent = read(id, 'parent_id')
  if not parent then return nil end
  local state, awaits = read(parent, 'state', 'awaits')
  return state == 'running' and awaits == id and parent or nil
end

local function end_outage(id)
  local outage = outage_of(id)
  if not outage then return end
  clear(id, 'waiting_for')
  if not outage.copy then count_waiting(outage.service, -1) end
  local parent = awaiting_parent(id)
  if parent then clear(parent, 'waiting_for') end
end

local function set_outage(id, outage)
  local before = outage_of(id)
  if before then count_waiting(before.service, -1) end
  count_waiting(outage.service, 1)
  write(id, 'waiting_for', cjson.encode(outage))
  local parent = awaiting_parent(id)
  if parent then
    outage.copy = true
    write(parent, 'waiting_for', cjson.encode(outage))
  end
end

-- Unit and number of what a progress report counts.
local function position(progress)
  if not progress then return '', 0 end
  local decoded = cjson.decode(progress)
  return decoded.unit, decoded.completed
end

-- Progress ends an outage only when the job gets further than it ever was: a service that takes the
-- same bytes again and fails is as good as away.
local function end_outage_after(id, progress)
  local unit, completed = position(progress)
  local farthest_unit, farthest = position((read(id, 'farthest')))
  if unit == farthest_unit and completed <= farthest then return end
  write(id, 'farthest', progress)
  end_outage(id)
end

-- A service that moves bytes again which the job had moved before is not away meanwhile.
local function count_work(id)
  local outage, reported, claimed = outage_of(id), read(id, 'reported_at', 'claimed_at')
  write(id, 'reported_at', now)
  local last, began = tonumber(reported), tonumber(claimed)
  if not outage or not last or not began or last < began or now - last > moving then return end
  outage.worked = (outage.worked or 0) + now - last
  write(id, 'waiting_for', cjson.encode(outage))
end

-- ── states ──────────────────────────────────────────────────────────────────
-- The event under which a change of state is counted; nil where its operation counts it.
local function change(from, to)
  if not from then return 'accepted' end
  if ended[to] then return to end
  if ended[from] then return 'revived' end
end

-- The only place where a state changes.
local function move(id, to)
  local from, kind, queue, model, submitter, priority, created, attempts, bytes, followed =
    read(id, 'state', 'kind', 'queue', 'model', 'submitter', 'priority', 'created_at', 'attempts', 'bytes',
      'followed')
  queue, model, submitter = queue or '', model or '', submitter or ''
  if from then
    for _, index in ipairs(indices(kind, from, model, submitter)) do redis.call('ZREM', index, id) end
  end
  for _, index in ipairs(indices(kind, to, model, submitter)) do redis.call('ZADD', index, 0, id) end
  if from == 'queued' then
    redis.call('ZREM', key('ready', queue), id)
    add_queued(submitter, -1)
    leave_lane(id)
    if to == 'running' then observe_claim(queue) end
  end
  if to == 'queued' then
    redis.call('ZADD', key('ready', queue), priority * 1e13 + created, id)
    add_queued(submitter, 1)
  end
  if open(from) ~= open(to) then
    redis.call('INCRBY', key('request_bytes'), open(to) and bytes or -bytes)
  end
  local event = change(from, to)
  if event then count(event, kind, queue) end
  if from == 'running' then end_run(id) end
  write(id, 'state', to)
  if followed ~= '1' then return end
  local outage = to == 'queued' and outage_of(id)
  append_event(id, 'state', cjson.encode({
    state = to,
    attempt = tonumber(attempts),
    waiting_for = outage and {service = outage.service, reason = outage.reason} or nil,
  }))
end

local function drop_lease(id)
  clear(id, 'lease_until')
  redis.call('ZREM', key('leases'), id)
end

-- A queued job that may start is looked at again when its time is over.
local function make_available(id)
  enter_lane(id)
  local deadline, start_by = read(id, 'deadline', 'start_by')
  due(id, now + parked, deadline, start_by)
end

local function enqueue(id, available)
  write(id, 'available_at', available)
  move(id, 'queued')
  if available > now then
    local deadline, start_by = read(id, 'deadline', 'start_by')
    due(id, available, deadline, start_by)
  else
    make_available(id)
  end
end

-- Takes a running job from its worker, to start again at a time.
local function give_back(id, available)
  drop_lease(id)
  clear(id, 'owner')
  enqueue(id, available)
end

-- The hash as a flat list, request and result as JSON or '', and the children of a job that awaited one.
local function record_of(id, whole)
  local flat, last = {}, 0
  for field, value in pairs(load_job(id)) do
    flat[last + 1], flat[last + 2] = field, value
    last = last + 2
  end
  local input = whole and load_job(id).cut and redis.call('GET', key('input', id))
  local result = ended[load_job(id).state] and redis.call('GET', key('result', id)) or ''
  local children = load_job(id).awaits and redis.call('ZRANGE', key('children', id), 0, -1) or {}
  return {flat, input or redis.call('GET', key('request', id)) or '', result, children}
end

-- Tells the API processes that hold a call for this job.
local function tell_waiters(id)
  local waiters = read(id, 'waiters')
  if not waiters then return end
  clear(id, 'waiters')
  local size = redis.call('STRLEN', key('request', id)) + redis.call('STRLEN', key('result', id))
  local record = size <= pushed_bytes and record_of(id) or {}
  local message = cjson.encode({id = id, record = record[1], request = record[2], result = record[3]})
  for channel in string.gmatch(waiters, '%S+') do redis.call('PUBLISH', channel, message) end
end

local child_ended

-- The only place where a job ends. `result` and `error` are JSON or ''.
local function finish(id, state, result, error)
  end_outage(id)
  move(id, state)
  drop_lease(id)
  clear(id, 'available_at', 'start_by', 'farthest', 'reported_at', 'sweep', 'sweep_after', 'unswept')
  -- Who still shows the text is told when the job is revived and sends it anew.
  if read(id, 'followed') ~= '1' then clear(id, 'said') end
  write(id, 'finished_at', now)
  if error ~= '' then write(id, 'error', error) else clear(id, 'error') end
  if result ~= '' then redis.call('SET', key('result', id), result) else redis.call('DEL', key('result', id)) end
  local queue, cut = read(id, 'queue', 'cut')
  if cut or not queue then redis.call('DEL', key('input', id), key('pieces', id)) end
  redis.call('ZREM', key('due'), id)
  redis.call('ZADD', key('expiries'), now + retention, id)
  if read(id, 'followed') == '1' then
    append_event(id, 'done', cjson.encode({state = state}))
    redis.call('PEXPIRE', key('events', id), events_kept)
  end
  tell_waiters(id)
  local parent = read(id, 'parent_id')
  if parent then child_ended(parent, id) end
end

local function fail(id, code, detail)
  finish(id, 'failed', '', cjson.encode({code = code, detail = detail, retryable = false}))
end

-- The worker of a running job was lost. Returns what became of the job.
local function lose(id)
  local crashes = increase(id, 'crashes', 1)
  local cancel, deadline = read(id, 'cancel_requested', 'deadline')
  count_job(id, 'lost')
  if cancel then
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
  give_back(id, now + backoff * (crashes - 1))
  return 'queued'
end

-- Fails a queued job whose time is over. Returns whether it did.
local function fail_if_late(id)
  local deadline, start_by = read(id, 'deadline', 'start_by')
  if deadline and tonumber(deadline) <= now then
    local outage = outage_of(id)
    local where = outage and 'while the job waited for ' .. outage.service or 'in the queue'
    fail(id, 'deadline_exceeded', 'the deadline passed ' .. where)
  elseif start_by and tonumber(start_by) <= now then
    fail(id, 'start_deadline_exceeded', 'no worker was free in the time within which it was to start')
  else
    return false
  end
  return true
end

-- ── new jobs and jobs made new ──────────────────────────────────────────────
-- Deadlines count from now; a child's is at most that of its parent.
local function set_deadlines(id)
  local lifetime, start_within, parent = read(id, 'lifetime', 'start_within', 'parent_id')
  local limit = parent and tonumber((read(parent, 'deadline'))) or math.huge
  local deadline = math.min(lifetime and now + lifetime or math.huge, limit)
  if deadline < math.huge then write(id, 'deadline', deadline) end
  if start_within then write(id, 'start_by', now + start_within) end
end

-- Writes the fields of a new job, which has no state yet. `job` is what record.py encodes.
local function put(job)
  local id = job.fields.id
  write(id, 'created_at', now, 'attempts', 0, 'crashes', 0, 'fence', 0)
  for field, value in pairs(job.fields) do set(id, field, value) end
  redis.call('SET', key('request', id), job.request)
  if job.input then redis.call('SET', key('input', id), job.input) end
  set_deadlines(id)
  local parent = job.fields.parent_id
  if job.fields.queue then redis.call('SADD', key('queues'), job.fields.queue) end
  if parent then redis.call('ZADD', key('children', parent), 0, id) end
end

-- A running job without a lease waits: a batch for all its children, another job for the child that it
-- awaits. The end of that child, or of the last one, moves it on.
local function wait_for_children(id, awaits)
  end_run(id)
  end_outage(id)
  drop_lease(id)
  clear(id, 'owner')
  if awaits then write(id, 'awaits', awaits) else clear(id, 'awaits') end
  due(id, now + parked)
end

-- Makes an ended job as it was when it was new, except for its fence.
local function reset(id)
  clear(id, 'error', 'progress', 'farthest', 'awaits', 'finished_at', 'started_at', 'cancel_requested', 'deadline')
  write(id, 'attempts', 0, 'crashes', 0)
  set_deadlines(id)
  redis.call('DEL', key('events', id), key('result', id))
  redis.call('ZREM', key('expiries'), id)
end
