-- What waits: bounds on it, the order in which jobs start, and the entries that wake idle slots.

-- ── bounds ──────────────────────────────────────────────────────────────────
local longest_gap = 60000

local function observe_claim(queue)
  local last, gap = unpack(redis.call('HMGET', key('drain'), queue .. ':last', queue .. ':gap'))
  local fields = {queue .. ':last', now}
  if last then
    local sample = math.min(math.max(now - last, 0), longest_gap)
    table.insert(fields, queue .. ':gap')
    table.insert(fields, gap and 0.8 * gap + 0.2 * sample or sample)
  end
  redis.call('HSET', key('drain'), unpack(fields))
end

-- Milliseconds until so many jobs have probably left a queue; -1 if nothing is known.
local function drain_time(queue, jobs)
  local last, gap = unpack(redis.call('HMGET', key('drain'), queue .. ':last', queue .. ':gap'))
  if not gap then return -1 end
  return math.ceil(jobs * math.max(gap, math.min(now - last, longest_gap)))
end

local function exceeded(limit, name, most, present, asked, queue, jobs)
  if present + asked <= most then return nil end
  return {limit = limit, name = name, most = most, present = present, asked = asked,
    wait = drain_time(queue, jobs or present + asked - most)}
end

-- The bound that `asked` would exceed: a list of {queue, submitter, bytes, jobs}; nil if none.
local function refusal(asked)
  local bytes, jobs, queues, submitters = 0, 0, {}, {}
  for _, each in ipairs(asked) do
    bytes, jobs = bytes + each.bytes, jobs + each.jobs
    if each.queue ~= '' then
      queues[each.queue] = (queues[each.queue] or 0) + each.jobs
      if each.submitter ~= '' then
        submitters[each.submitter] = (submitters[each.submitter] or 0) + each.jobs
      end
    end
  end
  local queue = asked[#asked].queue
  for name, number in pairs(queues) do
    local present = redis.call('ZCARD', key('ready', name))
    local found = exceeded('queue', name, max_queued, present, number, name)
    if found then return found end
  end
  for name, number in pairs(submitters) do
    local present = tonumber(redis.call('HGET', key('queued_by'), name) or 0)
    local found = exceeded('submitter', name, max_queued_per_submitter, present, number, queue)
    if found then return found end
  end
  local present = tonumber(redis.call('GET', key('request_bytes')) or 0)
  return exceeded('bytes', '', max_request_bytes, present, bytes, queue, jobs)
end

local function add_queued(submitter, by)
  if submitter == '' then return end
  if redis.call('HINCRBY', key('queued_by'), submitter, by) == 0 then
    redis.call('HDEL', key('queued_by'), submitter)
  end
end

-- ── lanes ───────────────────────────────────────────────────────────────────
-- Submitters take turns: a lane that was served gets the last turn of its priority. A job that lost
-- workers must run alone; such jobs have a queue of lanes of their own, 'QUEUE:alone'.
-- The lanes whose entries are to be balanced: the number of jobs in them, true where that is not known.
local touched = {}

local function lanes_of(queue, crashes)
  return tonumber(crashes) >= quarantine_crashes and queue .. ':alone' or queue
end

local function affine_key(lanes, priority, affinity)
  return key('affine', lanes, priority, affinity)
end

local function enter_lane(id)
  local job = load_job(id)
  local priority, created, affinity = job.priority, job.created_at, job.affinity
  local lanes, lane = lanes_of(job.queue, job.crashes), priority .. ':' .. (job.submitter or '')
  job.lanes = lanes
  if redis.call('ZADD', key('lane', lanes, lane), created, id) == 0 then return end
  if affinity then redis.call('ZADD', affine_key(lanes, priority, affinity), created, id) end
  local turn = redis.call('HGET', key('turns'), lanes) or 0
  redis.call('ZADD', key('lanes', lanes), 'NX', priority * 1e14 + turn, lane)
  touched[lanes] = redis.call('HINCRBY', key('available'), lanes, 1)
end

local function leave_lane(id)
  local job = load_job(id)
  local lanes, priority, affinity = job.lanes, job.priority, job.affinity
  if not lanes then return end
  job.lanes, job.passed_at = nil, nil
  local lane = priority .. ':' .. (job.submitter or '')
  local at = key('lane', lanes, lane)
  if redis.call('ZREM', at, id) == 0 then return end
  if affinity then redis.call('ZREM', affine_key(lanes, priority, affinity), id) end
  if redis.call('EXISTS', at) == 0 then redis.call('ZREM', key('lanes', lanes), lane) end
  touched[lanes] = redis.call('HINCRBY', key('available'), lanes, -1)
end

-- Keeps as many entries in the list that idle slots wait for as jobs are in lanes. A slot that took
-- an entry and got no job, and one that died with it, are made good here.
local function balance(lanes, jobs)
  local list = celery_prefix .. lanes
  if jobs == true then jobs = tonumber(redis.call('HGET', key('available'), lanes) or 0) end
  local entries = redis.call('LLEN', list)
  if entries > jobs then
    redis.call('LTRIM', list, entries - jobs, -1)
  else
    for _ = entries + 1, math.min(jobs, entries + 1000) do redis.call('LPUSH', list, lanes) end
  end
end

local function balance_touched()
  for lanes, jobs in pairs(touched) do balance(lanes, jobs) end
end

-- ── the next job ────────────────────────────────────────────────────────────
-- The first job of the lane whose turn it is: with its priority, the time when it was accepted, and whether
-- other lanes wait.
local function head(lanes)
  while true do
    local first = redis.call('ZRANGE', key('lanes', lanes), 0, 1)
    local lane = first[1]
    if not lane then return nil end
    local job = redis.call('ZRANGE', key('lane', lanes, lane), 0, 0, 'WITHSCORES')
    if job[1] then
      local priority = tonumber(string.match(lane, '^%d+'))
      return {id = job[1], created = tonumber(job[2]), priority = priority, lanes = lanes, contested = first[2]}
    end
    redis.call('ZREM', key('lanes', lanes), lane)
  end
end

local function is_before(one, other)
  if not other then return true end
  if one.priority ~= other.priority then return one.priority < other.priority end
  if one.created ~= other.created then return one.created < other.created end
  return one.id < other.id
end

local function first_of(queues, suffix)
  local best
  for _, queue in ipairs(queues) do
    local found = head(queue .. suffix)
    if found and is_before(found, best) then best = found end
  end
  return best
end

-- How long a job is left to other workers where its model is warm: as long as a load takes, and at most
-- the window. 0 where it is warm nowhere else.
local function time_to_leave(affinity, worker)
  for _, other in ipairs(redis.call('SMEMBERS', key('warm_workers'))) do
    local load = other ~= worker and redis.call('HGET', key('warm', other), affinity)
    if load then return load == '0' and affinity_window or math.min(tonumber(load), affinity_window) end
  end
  return 0
end

-- The oldest job of the same priority whose model is warm here.
local function warm_job(first, warm)
  local best
  for affinity in pairs(warm) do
    local at = affine_key(first.lanes, first.priority, affinity)
    local found = redis.call('ZRANGE', at, 0, 0, 'WITHSCORES')
    if found[1] then
      local job = {id = found[1], created = tonumber(found[2]), priority = first.priority, lanes = first.lanes,
        contested = first.contested}
      if is_before(job, best) then best = job end
    end
  end
  return best
end

-- Chooses between the job whose turn it is and those whose models are warm at the asking worker (decision
-- record 0022). Returns a job, or nil and the milliseconds after which to ask again.
local function choose(first, want)
  local job = load_job(first.id)
  local affinity, passed = job.affinity, job.passed_at
  if not want.warm or not affinity or want.warm[affinity] then return first end
  local other = warm_job(first, want.warm)
  if other then
    -- Jobs with warm models go before it, but only for the window.
    if not passed then
      passed = now
      job.passed_at = now
    end
    -- A clock that stepped back ends the window too.
    local waited = now - passed
    if waited >= 0 and waited < affinity_window then return other end
    -- Also where the worker may not load now: the model that it is to replace could be in use for ever.
    return first
  end
  if not want.loads then return nil, affinity_pause end
  -- It is left to a worker where its model is warm until the oldest job of that model has waited for as
  -- long as a load takes: then a second copy serves them sooner.
  local oldest = redis.call('ZRANGE', affine_key(first.lanes, first.priority, affinity), 0, 0, 'WITHSCORES')
  local waited = now - tonumber(oldest[2])
  local left = time_to_leave(affinity, want.owner) - waited
  if left <= 0 or waited < 0 then return first end
  return nil, math.min(left, affinity_pause)
end

-- The lane of a job goes behind the others of its priority. A lane that waits alone needs no turn.
local function take_turn(chosen)
  if not chosen.contested then return end
  local job, lanes = load_job(chosen.id), chosen.lanes
  local turn = redis.call('HINCRBY', key('turns'), lanes, 1)
  redis.call('ZADD', key('lanes', lanes), 'XX', job.priority * 1e14 + turn, job.priority .. ':' .. (job.submitter or ''))
end
