-- Changes of a job's state: queued, running, ended; and outages, for which a job waits.

-- ── outages ─────────────────────────────────────────────────────────────────
-- `waiting_for` is a JSON object: the service, since when it has not answered, the last reason, the number
-- of tries, and the time in which these moved bytes. A job that awaits such a child shows a copy of it.

-- Bytes move while the reports of a job's run follow each other within this time.
local moving = 5000

local function outage_of(id)
  local text = load_job(id).waiting_for
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

local function end_outage(id) -- rare
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
-- The only place where a state changes.
local function move(id, to)
  local job = load_job(id)
  local from, kind, model, queue, submitter = job.state, job.kind, job.model or '', job.queue or '', job.submitter or ''
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
    -- That of one host was forgotten where nothing waited in it.
    redis.call('SADD', key('queues'), queue)
    redis.call('ZADD', key('ready', queue), job.priority * 1e13 + job.created_at, id)
    add_queued(submitter, 1)
  end
  -- Its operation counts each other change.
  local event = not from and 'accepted' or ended[to] and to or ended[from] and 'revived'
  if event then
    redis.call('INCRBY', key('request_bytes'), ended[to] and -job.bytes or job.bytes)
    count(event, kind, queue)
  end
  if from == 'running' then end_run(job) end
  job.state = to
  if not job.followed then return end
  local outage = to == 'queued' and outage_of(id)
  append_event(id, 'state', cjson.encode({
    state = to,
    attempt = tonumber(job.attempts),
    waiting_for = outage and {service = outage.service, reason = outage.reason} or nil,
  }))
end

local function drop_lease(id)
  load_job(id).lease_until = nil
  redis.call('ZREM', key('leases'), id)
end

-- A queued job that may start is looked at again when its time is over.
local function make_available(id)
  local job = load_job(id)
  enter_lane(id)
  due(id, now + parked, job.deadline, job.start_by)
end

local function enqueue(id, available)
  local job = load_job(id)
  job.available_at = available
  move(id, 'queued')
  if available <= now then return make_available(id) end
  due(id, available, job.deadline, job.start_by)
end

-- Takes a running job from its worker, to start again at a time.
local function give_back(id, available)
  drop_lease(id)
  load_job(id).owner = nil
  enqueue(id, available)
end

-- The hash as a flat list, request and result as JSON or '', and the children of a job that awaits one or
-- was revived.
-- A worker gets the whole request, and the number of stage transitions so far.
local function record_of(id, for_worker)
  local job, flat, last = load_job(id), {}, 0
  for field, value in pairs(job) do
    flat[last + 1] = field
    flat[last + 2] = type(value) == 'number' and string.format('%.17g', value) or value
    last = last + 2
  end
  if for_worker then flat[last + 1], flat[last + 2] = 'epoch', redis.call('GET', epoch_key) or '0' end
  local request = for_worker and job.cut and redis.call('GET', key('input', id)) or redis.call('GET', key('request', id))
  local result = ended[job.state] and redis.call('GET', key('result', id)) or ''
  local children = (job.awaits or job.has_children) and redis.call('ZRANGE', key('children', id), 0, -1) or {}
  return {flat, request or '', result, children}
end

-- Tells the API processes that hold a call for this job. Large records and batches they read themselves.
local function tell_waiters(id, result)
  local job = load_job(id)
  local waiters, record = job.waiters, {}
  if not waiters then return end
  job.waiters = nil
  if job.queue and #result + (job.cut and 0 or job.bytes) <= pushed_bytes then record = record_of(id) end
  local message = cjson.encode({id = id, record = record[1], request = record[2], result = record[3]})
  for channel in string.gmatch(waiters, '%S+') do redis.call('PUBLISH', channel, message) end
end

local child_ended

-- The only place where a job ends. `result` and `error` are JSON or ''.
-- `told`: the worker that ran it ends it, and tells Celery so.
local function finish(id, state, result, error, told)
  local job = load_job(id)
  if job.waiting_for then end_outage(id) end
  move(id, state)
  drop_lease(id)
  job.available_at, job.start_by, job.farthest, job.reported_at = nil, nil, nil, nil
  job.sweep, job.sweep_after, job.unswept = nil, nil, nil
  -- Who still shows the text is told when the job is revived and sends it anew.
  if not job.followed then job.said = nil end
  job.finished_at = now
  job.error = error ~= '' and error or nil
  if result ~= '' then redis.call('SET', key('result', id), result) end
  if job.cut or not job.queue then redis.call('DEL', key('input', id), key('pieces', id)) end
  redis.call('ZREM', key('due'), id)
  redis.call('ZADD', key('expiries'), now + retention, id)
  if job.followed then
    append_event(id, 'done', cjson.encode({state = state}))
    redis.call('PEXPIRE', key('events', id), events_kept)
  end
  tell_waiters(id, result)
  -- The reconcilers tell Celery, which knows only jobs that once ran.
  if not told and job.queue and tonumber(job.fence) > 0 then
    redis.call('RPUSH', key('untold'), id)
    redis.call('LTRIM', key('untold'), -most_untold, -1)
  end
  if job.parent_id then child_ended(job.parent_id, id) end
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
  local job = load_job(id)
  if job.deadline and tonumber(job.deadline) <= now then
    local outage = outage_of(id)
    local where = outage and 'while the job waited for ' .. outage.service or 'in the queue'
    fail(id, 'deadline_exceeded', 'the deadline passed ' .. where)
  elseif job.start_by and tonumber(job.start_by) <= now then
    fail(id, 'start_deadline_exceeded', 'no worker was free in the time within which it was to start')
  else
    return false
  end
  return true
end

-- ── new jobs and jobs made new ──────────────────────────────────────────────
-- Deadlines count from now; a child's is at most that of its parent.
local function set_deadlines(id)
  local job = load_job(id)
  local limit = job.parent_id and tonumber(load_job(job.parent_id).deadline) or math.huge
  local deadline = math.min(job.lifetime and now + job.lifetime or math.huge, limit)
  if deadline < math.huge then job.deadline = deadline end
  if job.start_within then job.start_by = now + job.start_within end
end

-- Writes a new job, which has no state yet. `input` is the whole request where that is large.
local function put(fields, request, input)
  local id, parent = fields.id, fields.parent_id
  fields.created_at, fields.attempts, fields.crashes, fields.fence = now, 0, 0, 0
  replace_job(id, fields)
  redis.call('SET', key('request', id), request)
  if input then redis.call('SET', key('input', id), input) end
  set_deadlines(id)
  if parent then redis.call('ZADD', key('children', parent), 0, id) end
end

-- A running job without a lease waits: a batch for all its children, another job for the child that it
-- awaits. The end of that child, or of the last one, moves it on.
local function wait_for_children(id, awaits)
  end_run(load_job(id))
  end_outage(id)
  drop_lease(id)
  clear(id, 'owner')
  load_job(id).awaits = awaits
  due(id, now + parked)
end

-- Makes an ended job as it was when it was new, except for its fence.
local function reset(id)
  clear(id, 'error', 'progress', 'farthest', 'awaits', 'finished_at', 'started_at', 'cancel_requested', 'deadline')
  write(id, 'attempts', 0, 'crashes', 0)
  if redis.call('EXISTS', key('children', id)) == 1 then write(id, 'has_children', 1) end
  set_deadlines(id)
  redis.call('DEL', key('events', id), key('result', id))
  redis.call('ZREM', key('expiries'), id)
end
