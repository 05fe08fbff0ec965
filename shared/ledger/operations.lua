-- The operations of API processes and of workers. Each is called by name with its arguments.
local operations = {}

-- ── API processes ───────────────────────────────────────────────────────────

-- Returns why a job is not accepted, or nil: {'existing' or 'conflict', id}, {'refused', bound (JSON)}.
local function not_accepted(fields, asked, idempotency_key)
  local id = fields.id
  if exists(id) then return {'existing', id} end
  if idempotency_key ~= '' then
    local held = redis.call('GET', key('idempotency', idempotency_key))
    if held then
      return {load_job(held).fingerprint == fields.fingerprint and 'existing' or 'conflict', held}
    end
  end
  local refused = refusal(asked)
  if refused then
    count('refused', fields.kind, fields.queue or '')
    return {'refused', cjson.encode(refused)}
  end
  if idempotency_key ~= '' then
    redis.call('SET', key('idempotency', idempotency_key), id)
    fields.idempotency_key = idempotency_key
  end
end

-- A job's fields (JSON), its request, all of that where it is large or '', idempotency key or ''.
-- Returns {'accepted', now, position} or what `not_accepted` returns.
function operations.accept(text, request, input, idempotency_key)
  local fields = cjson.decode(text)
  local id, queue = fields.id, fields.queue
  local asked = {queue = queue, submitter = fields.submitter or '', bytes = fields.bytes, jobs = 1}
  local refused = not_accepted(fields, {asked}, idempotency_key)
  if refused then return refused end
  put(fields, request, input ~= '' and input)
  enqueue(id, now)
  return {'accepted', now, redis.call('ZRANK', key('ready', queue), id)}
end

-- The same for a batch, whose children are in `pieces`; it is never claimed, as it runs while its children do.
-- fields, request, input, idempotency key, number of children, what it and they ask of the bounds (JSON list of
-- {queue, submitter, bytes, jobs}). Returns {'accepted', now, false}, {'incomplete'}, or what
-- `not_accepted` returns.
function operations.accept_batch(text, request, input, idempotency_key, children, asked)
  local fields = cjson.decode(text)
  local id = fields.id
  local refused = not_accepted(fields, cjson.decode(asked), idempotency_key)
  if refused then
    if refused[2] ~= id then redis.call('DEL', key('pieces', id)) end
    return refused
  end
  -- A failover may have lost the children that were brought before.
  if redis.call('PERSIST', key('pieces', id)) == 0 then return {'incomplete'} end
  put(fields, request, input ~= '' and input)
  write(id, 'available_at', now, 'started_at', now, 'pending', children, 'children_total', children)
  move(id, 'running')
  wait_for_children(id)
  begin_sweep(id, 'write', children)
  return {'accepted', now, false}
end

-- A batch. Returns whether more pieces of its sweep are to be done.
function operations.sweep(id)
  return sweep(id) and 1 or 0
end

-- id, nonce of this call. Returns {outcome, state}: cancelled, requested, ended or unknown.
function operations.cancel(id, nonce)
  local state, queue, call = read(id, 'state', 'queue', 'call')
  if not state then return {'unknown', ''} end
  -- The reply to this call was lost, and the call is repeated.
  if call == nonce then return {open(state) and 'requested' or 'cancelled', state} end
  if not open(state) then return {'ended', state} end
  write(id, 'call', nonce)
  if state == 'queued' then
    finish(id, 'cancelled', '', '')
    return {'cancelled', 'cancelled'}
  end
  write(id, 'cancel_requested', 1)
  if queue then
    local child = load_job(id).awaits
    if child then cancel_child(child) end
  else
    local unswept = tonumber((read(id, 'unswept'))) or 0
    redis.call('DEL', key('pieces', id))
    begin_sweep(id, 'cancel', 0)
    if unswept > 0 then count_ended(id, unswept) end
    sweep(id)
  end
  return {open((read(id, 'state'))) and 'requested' or 'cancelled', state}
end

-- What the children of a batch that would run again ask of the bounds, as its last end left it.
local function failed_children(id)
  local jobs, bytes, queue, submitter = read(id, 'again_jobs', 'again_bytes', 'again_queue', 'submitter')
  return {queue = queue or '', submitter = submitter or '', bytes = tonumber(bytes or 0), jobs = tonumber(jobs or 0)}
end

local function reopen(parent, pending, awaits)
  reset(parent)
  write(parent, 'started_at', now, 'available_at', now, 'pending', pending)
  move(parent, 'running')
  wait_for_children(parent, awaits)
end

-- id, nonce of this call.
-- Returns {outcome, state}: revived, refused, forgotten, freed or unknown; or {full, bound (JSON)}.
function operations.revive(id, nonce)
  local state, parent, kind, queue, submitter, bytes, call, cut =
    read(id, 'state', 'parent_id', 'kind', 'queue', 'submitter', 'bytes', 'call', 'cut')
  if not state then return {'unknown', ''} end
  if call == nonce then return {'revived', state} end
  if state ~= 'failed' and state ~= 'cancelled' then return {'refused', state} end
  if queue and cut then return {'freed', state} end
  local again = queue and {jobs = 0} or failed_children(id)
  -- A batch whose failed children are forgotten cannot be made good.
  if not queue and again.jobs == 0 then return {'forgotten', state} end
  local own = {queue = queue or '', submitter = submitter or '', bytes = tonumber(bytes), jobs = 1}
  local full = refusal(again.jobs > 0 and {own, again} or {own})
  if full then
    count('refused', kind, queue or '')
    return {'full', cjson.encode(full)}
  end
  write(id, 'call', nonce)
  if not queue then
    reopen(id, again.jobs)
    begin_sweep(id, 'revive', again.jobs)
    sweep(id)
    return {'revived', 'running'}
  end
  if parent and exists(parent) then
    local its_state, its_queue = read(parent, 'state', 'queue')
    if its_queue then
      -- One whose large input was deleted at its end cannot go on.
      if not open(its_state) and not read(parent, 'cut') then reopen(parent, 0, id) end
    elseif its_state == 'running' then
      increase(parent, 'pending', 1)
    else
      reopen(parent, 1)
    end
  end
  -- After its parent, whose deadline it has.
  reset(id)
  enqueue(id, now)
  return {'revived', 'queued'}
end

-- id, channel. Registers a waiting API process unless the job has ended. Returns whether it did.
function operations.await_end(id, channel)
  local state, waiters = read(id, 'state', 'waiters')
  if not open(state) then return 0 end
  waiters = waiters or ''
  if not string.find(waiters, channel, 1, true) then write(id, 'waiters', waiters .. ' ' .. channel) end
  return 1
end

-- id. From now on the job's events are written; the first ones say how it is. Returns its state.
function operations.follow(id)
  local state, followed, attempts, progress = read(id, 'state', 'followed', 'attempts', 'progress')
  if not state then return '' end
  if followed and redis.call('EXISTS', key('events', id)) == 1 then return state end
  write(id, 'followed', 1)
  append_event(id, 'state', cjson.encode({state = state, attempt = tonumber(attempts)}))
  if progress then append_event(id, 'progress', progress) end
  if not open(state) then
    append_event(id, 'done', cjson.encode({state = state}))
    redis.call('PEXPIRE', key('events', id), events_kept)
  end
  return state
end

-- parent, last id of the page before or '', limit, wanted values of the children's fields (JSON object).
-- Looks at the newest children only. Returns the ids of those that fit, and the kind of a child if others are to
-- be looked at: the many children of a batch are of one kind.
function operations.children(parent, before, limit, wanted)
  local fields, values, found = {}, {}, {}
  for field, value in pairs(cjson.decode(wanted)) do
    fields[#fields + 1], values[#values + 1] = field, value
  end
  local newest = before ~= '' and '(' .. before or '+'
  local children = redis.call('ZREVRANGEBYLEX', key('children', parent), newest, '-', 'LIMIT', 0, listed_size)
  for _, child in ipairs(children) do
    local fits = true
    for place, value in ipairs(redis.call('HMGET', key('job', child), unpack(fields))) do
      fits = fits and value == values[place]
    end
    if fits then found[#found + 1] = child end
    if #found == tonumber(limit) then return {found, ''} end
  end
  local last = children[listed_size]
  return {found, last and peek(last, 'kind') or ''}
end

-- ── workers ─────────────────────────────────────────────────────────────────

local function is_owner(job, fence, nonce)
  return job.fence == fence and job.nonce == nonce
end

-- Whether the run goes on: a job that waits for a child has no lease, and no worker.
local function holds(job, fence, nonce)
  return job.state == 'running' and job.lease_until and is_owner(job, fence, nonce)
end

-- Makes a job the worker's. Returns its whole record.
local function take(id, want)
  local job = load_job(id)
  job.fence, job.attempts = job.fence + 1, job.attempts + 1
  job.owner, job.nonce, job.lease_until, job.claimed_at = want.owner, want.nonce, now + lease, now
  job.start_by, job.error = nil, nil
  job.started_at = job.started_at or now
  move(id, 'running')
  if job.said then
    -- An earlier attempt sent text; this attempt sends its own from the beginning.
    job.said = nil
    emit(id, 'restart', cjson.encode({attempt = job.attempts}))
  end
  redis.call('ZADD', key('leases'), now + lease, id)
  local record = record_of(id, true)
  record.id = id -- Redis returns the list alone
  return record
end

-- What this very claim has got already: its reply was lost, and the claim is repeated.
local function claimed_before(want)
  local held = redis.call('HGET', key('slots', want.owner), want.slot)
  if not held or string.match(held, '^%S+') ~= want.nonce then return nil end
  local records = {}
  for id in string.gmatch(held, ' (%S+)') do
    local job = load_job(id)
    if job.state == 'running' and job.nonce == want.nonce then table.insert(records, record_of(id, true)) end
  end
  return records
end

-- Further jobs for a model that takes several at once.
local function companions(first, affinity, places, want)
  local records = {}
  local at = affine_key(first.lanes, first.priority, affinity)
  for _, id in ipairs(redis.call('ZRANGE', at, 0, places - 1)) do
    if not fail_if_late(id) then table.insert(records, take(id, want)) end
  end
  return records
end

-- Tells other workers at once that a worker loads a model; its next report says the same.
local function note_load(affinity, want)
  if not want.warm or not affinity or want.warm[affinity] then return end
  redis.call('HSETNX', key('warm', want.owner), affinity, 0)
  redis.call('PEXPIRE', key('warm', want.owner), lease)
  redis.call('SADD', key('warm_workers'), want.owner)
end

-- Gives a slot what it can take: {records, milliseconds to wait or -1}.
local function claim(want)
  local before = claimed_before(want)
  if before then return {before, -1} end
  local records, pause, looked_at = {}, -1, 0
  while #records == 0 and pause < 0 do
    local first = first_of(want.queues, want.alone and ':alone' or '')
    if not first then break end
    -- Where many jobs are late, a call fails some of them, and the slot asks again at once.
    looked_at = looked_at + 1
    if looked_at > piece_size then pause = 0 break end
    if not fail_if_late(first.id) then
      local chosen, wait = choose(first, want)
      if not chosen then
        pause = wait
      elseif chosen == first or not fail_if_late(chosen.id) then
        local affinity = load_job(chosen.id).affinity
        take_turn(chosen)
        table.insert(records, take(chosen.id, want))
        note_load(affinity, want)
        local places = affinity and want.warm and want.warm[affinity] or 1
        if places > 1 then
          for _, record in ipairs(companions(chosen, affinity, places - 1, want)) do table.insert(records, record) end
        end
      end
    end
  end
  if #records > 0 then
    local ids = {want.nonce}
    for _, record in ipairs(records) do table.insert(ids, record.id) end
    local at = key('slots', want.owner)
    -- It expires with a worker that does not renew; a renewal comes before that.
    if redis.call('HSET', at, want.slot, table.concat(ids, ' ')) == 1 then redis.call('PEXPIRE', at, 10 * lease) end
  end
  for _, queue in ipairs(want.queues) do
    local lanes = want.alone and queue .. ':alone' or queue
    touched[lanes] = touched[lanes] or true
  end
  return {records, pause}
end

-- Does nothing before the claim that every call of a worker may end with.
function operations.claim()
  return false
end

-- fence and nonce of the run go with every operation of a run. Each returns whether it counts, and is
-- repeated without harm when a reply was lost.

-- id, fence, nonce, state, result (JSON or ''), error (JSON or '').
function operations.finish(id, fence, nonce, to, result, error)
  local job = load_job(id)
  if not is_owner(job, fence, nonce) then return 0 end
  if job.state == to then return 1 end
  if not holds(job, fence, nonce) then return 0 end
  finish(id, to, result, error, true)
  return 1
end

-- id, fence, nonce. The process that ran the job is known to be dead.
function operations.lose(id, fence, nonce)
  if not holds(load_job(id), fence, nonce) then return 0 end
  lose(id)
  return 1
end

-- id, fence, nonce, delay, error (JSON or ''), whether the attempt counts.
function operations.requeue(id, fence, nonce, delay, error, counts)
  local job = load_job(id)
  if not is_owner(job, fence, nonce) then return 0 end
  if not holds(job, fence, nonce) then return job.state == 'queued' and 1 or 0 end
  if job.cancel_requested then
    finish(id, 'cancelled', '', '')
    return 1
  end
  if counts == '1' then
    count_job(id, 'retried')
  else
    count_job(id, 'returned')
    increase(id, 'attempts', -1)
  end
  if error ~= '' then job.error = error end
  give_back(id, now + delay)
  return 1
end

-- Gives a running job back because a service does not answer. The run does not count as an attempt.
-- id, fence, nonce, service, reason, error (JSON), milliseconds that the service asks for, jitter (0 to 1).
-- Returns {postponed, lost, or over where the budget is used up; milliseconds that the service was away}.
function operations.postpone(id, fence, nonce, service, reason, error, asked, jitter)
  local job = load_job(id)
  if not is_owner(job, fence, nonce) then return {'lost', 0} end
  if not holds(job, fence, nonce) then return {job.state == 'queued' and 'postponed' or 'lost', 0} end
  if job.cancel_requested then
    finish(id, 'cancelled', '', '')
    return {'postponed', 0}
  end
  local outage = outage_of(id)
  if not outage or outage.service ~= service then
    outage = {service = service, since = now, tries = 0}
  end
  local away = now - outage.since - (outage.worked or 0)
  if away >= outage_budget then return {'over', away} end
  local delay = math.min(outage_backoff * 2 ^ outage.tries, outage_backoff_max) * jitter + asked
  outage.tries, outage.reason = outage.tries + 1, reason
  set_outage(id, outage)
  count_job(id, 'postponed')
  increase(id, 'attempts', -1)
  job.error = error
  -- The last try is at the end of the budget.
  give_back(id, now + math.ceil(math.min(delay, outage_budget - away)))
  return {'postponed', away}
end

-- A running job makes a child, or takes one that it has, and waits for the child's end.
-- id, fence, nonce, the child's id, the child if it is new (JSON) or ''.
function operations.delegate(id, fence, nonce, child, text)
  local job = load_job(id)
  if not is_owner(job, fence, nonce) then return 0 end
  if job.awaits == child and not job.lease_until then return 1 end
  if not holds(job, fence, nonce) then return 0 end
  if job.cancel_requested then
    finish(id, 'cancelled', '', '')
    return 1
  end
  local its_state = load_job(child).state
  if text ~= '' then
    local new = cjson.decode(text)
    put(new.fields, new.request, new.input)
    enqueue(child, now)
  elseif its_state == 'failed' or its_state == 'cancelled' then
    reset(child)
    enqueue(child, now)
  end
  wait_for_children(id, child)
  -- It ended by itself just now, or was forgotten: there is nothing to wait for.
  local left = load_job(child).state
  if not left or left == 'succeeded' then child_ended(id, child) end
  return 1
end

-- worker, runs (JSON list of {id, fence, nonce}), loads of warm models by affinity (JSON object
-- of milliseconds) or '' for a worker without models.
-- Returns for each run ok, cancel, late or lost.
function operations.renew(worker, runs, warm)
  local answers = {}
  for place, run in ipairs(cjson.decode(runs)) do
    local id, job = run[1], load_job(run[1])
    if not holds(job, run[2], run[3]) then
      answers[place] = 'lost'
    else
      job.lease_until = now + lease
      redis.call('ZADD', key('leases'), now + lease, id)
      local late = job.deadline and tonumber(job.deadline) <= now
      answers[place] = job.cancel_requested and 'cancel' or late and 'late' or 'ok'
    end
  end
  redis.call('PEXPIRE', key('slots', worker), 10 * lease)
  if warm ~= '' then
    redis.call('DEL', key('warm', worker))
    local fields = {}
    for affinity, load in pairs(cjson.decode(warm)) do
      table.insert(fields, affinity)
      table.insert(fields, load)
    end
    if #fields > 0 then
      redis.call('HSET', key('warm', worker), unpack(fields))
      redis.call('PEXPIRE', key('warm', worker), lease)
      redis.call('SADD', key('warm_workers'), worker)
    else
      redis.call('SREM', key('warm_workers'), worker)
    end
  end
  return answers
end

-- id, fence, nonce, event (progress, token or thinking), data (JSON), a text's number in its run or ''.
function operations.report(id, fence, nonce, event, data, number)
  local job = load_job(id)
  if not holds(job, fence, nonce) then return 0 end
  if event ~= 'progress' then
    -- The reply to this very text was lost, and the text is sent again.
    local run, last = string.match(job.said or '', '^(%d+):(%d+)$')
    if run == fence and tonumber(last) >= tonumber(number) then return 1 end
    job.said = fence .. ':' .. number
    emit(id, event, data)
    return 1
  end
  emit(id, event, data)
  job.progress = data
  end_outage_after(id, data)
  count_work(id)
  -- The progress of a child that is one of its parent's equal parts is the parent's too.
  local parent = job.parts and load_job(job.parent_id)
  if parent and parent.awaits == id then
    local progress = cjson.decode(data)
    progress.completed = progress.completed + (tonumber(progress.total) or 0) * job.part
    progress.message = job.kind .. ': ' .. progress.message
    if progress.total ~= cjson.null then progress.total = progress.total * job.parts end
    progress = cjson.encode(progress)
    parent.progress = progress
    emit(job.parent_id, 'progress', progress)
  end
  return 1
end
