-- Keys, all behind KEYS[1], the prefix of this schema. Times are milliseconds of Redis' clock.
--
--   job:ID                  hash    one job; small values only, so that Redis stores it as a listpack
--   request:ID, result:ID   string  JSON of a job's request and result; large inputs are cut out of `request`
--   input:ID                string  JSON of the whole request where it is large; deleted when the job ends
--   events:ID               stream  what a follower of the job sees; written only once somebody follows
--   children:ID             zset    ids of a job's children
--   pieces:ID               list    children of a batch that are accepted and not yet written (JSON lists)
--   tally:ID:STATE          string  JSON of the ended children of a batch that is about to end
--   idempotency:KEY         string  id of the job that a submitter's key stands for
--   jobs:KIND:STATE[...]    zset    ids by kind and state, and the same for each model and each submitter
--   due                     zset    when to look at a job that is not under a lease and has not ended
--   leases                  zset    when the lease of a running job ends
--   expiries                zset    when to forget an ended job
--   queues                  set     names of queues
--   ready:QUEUE             zset    queued jobs by priority and age: their positions
--   lanes:QUEUE             zset    lanes by priority and turn; a lane is 'PRIORITY:SUBMITTER'
--   lane:QUEUE:LANE         zset    jobs of a lane that may start now, by age
--   affine:QUEUE:PRIORITY:A zset    the same jobs by affinity
--   turns, available        hash    by queue: the last turn taken, the number of jobs in lanes
--   celery_prefix .. QUEUE  list    one entry for each job in a lane; idle slots wait for one, and Flower
--                                   shows its length
--   slots:WORKER            hash    by slot: the nonce of its last claim and the jobs that it got
--   warm:WORKER             hash    by affinity of the models that are warm at a worker: milliseconds of a load
--   warm_workers            set     workers that reported warm models
--   drain                   hash    by queue: when a job last left it, and the usual time between two
--   queued_by, outages      hash    number of jobs: queued by submitter, waiting by service
--   request_bytes           string  size of the requests of the jobs that have not ended
--   counts, runs            hash    counters of events and run times, for metrics
--   untold                  list    ids of the last jobs that did not end by a word of their workers
--   pulse, amnesty          string  when the last reconciliation was; until when leases are not taken away
local prefix = KEYS[1]

local ended = {succeeded = true, failed = true, cancelled = true}

local function key(family, name, last, ...)
  if not name then return prefix .. ':' .. family end
  if not last then return prefix .. ':' .. family .. ':' .. name end
  if not ... then return prefix .. ':' .. family .. ':' .. name .. ':' .. last end
  return table.concat({prefix, family, name, last, ...}, ':')
end

-- A job's hash is read once in a call, and what changed in it is written once at its end. Numbers are
-- strings where they were read, and numbers where they were assigned.
local jobs, stored = {}, {}

local function load_job(id)
  local job = jobs[id]
  if job then return job end
  local before, flat = {}, redis.call('HGETALL', prefix .. ':job:' .. id)
  job = {}
  for place = 1, #flat, 2 do
    local field, value = flat[place], flat[place + 1]
    job[field], before[field] = value, value
  end
  jobs[id], stored[id] = job, before
  return job
end

-- A job that is new, or (with no fields) one that is deleted.
local function replace_job(id, fields)
  jobs[id], stored[id] = fields, {}
end

-- The values of some fields, false where there is none.
local function read(id, ...)
  local job, values = load_job(id), {...}
  for place, field in ipairs(values) do values[place] = job[field] or false end
  return unpack(values)
end

-- The same for a job of which nothing else is needed.
local function peek(id, ...)
  if jobs[id] then return read(id, ...) end
  return unpack(redis.call('HMGET', key('job', id), ...))
end

local function write(id, ...)
  local job, pairs_of = load_job(id), {...}
  for place = 1, #pairs_of, 2 do
    local value = pairs_of[place + 1]
    job[pairs_of[place]] = type(value) == 'number' and string.format('%.17g', value) or value
  end
end

local function clear(id, ...)
  local job = load_job(id)
  for _, field in ipairs({...}) do job[field] = nil end
end

local function increase(id, field, by)
  local job = load_job(id)
  job[field] = (tonumber(job[field]) or 0) + by
  return job[field]
end

local function exists(id)
  return next(load_job(id)) ~= nil
end

local function flush()
  for id, job in pairs(jobs) do
    local before, written, cleared, last = stored[id], {}, {}, 0
    for field, value in pairs(job) do
      if before[field] ~= value then
        written[last + 1], written[last + 2] = field, value
        last = last + 2
      end
    end
    for field in pairs(before) do
      if job[field] == nil then cleared[#cleared + 1] = field end
    end
    if last > 0 then redis.call('HSET', prefix .. ':job:' .. id, unpack(written)) end
    if #cleared > 0 then redis.call('HDEL', prefix .. ':job:' .. id, unpack(cleared)) end
  end
end

local function open(state)
  return (state and not ended[state]) or false
end

-- Looks at a job at a time, or earlier where one of the limits is earlier.
local function due(id, at, limit, other)
  at = math.min(at, tonumber(limit) or at, tonumber(other) or at)
  redis.call('ZADD', key('due'), at, id)
end

local function append_event(id, event, data)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', events_max, '*', 'event', event, 'data', data)
end

-- Appends an event for the job's followers, if there are any.
local function emit(id, event, data)
  if load_job(id).followed then append_event(id, event, data) end
end

-- A job's places in the indices that listings read, for one state.
local function indices(kind, state, model, submitter)
  local base = prefix .. ':jobs:' .. kind .. ':' .. state
  local found = {base}
  if model ~= '' then found[2] = base .. ':model:' .. model end
  if submitter ~= '' then
    found[#found + 1] = base .. ':submitter:' .. submitter
    if model ~= '' then found[#found + 1] = base .. ':both:' .. submitter .. ':' .. model end
  end
  return found
end

-- Queues of one host are counted together with those of all hosts.
local function count(event, kind, queue, by)
  local counted = string.match(queue, '^[^.]*')
  redis.call('HINCRBY', key('counts'), event .. ':' .. kind .. ':' .. counted, by or 1)
end

local function count_job(id, event)
  local job = load_job(id)
  count(event, job.kind, job.queue or '')
end

-- Counts the run that ends now. A batch has no runs: nobody claims it.
local function end_run(job)
  if not job.claimed_at then return end
  local milliseconds = now - job.claimed_at
  job.claimed_at = nil
  local bucket = #run_bounds + 1
  for place, bound in ipairs(run_bounds) do
    if milliseconds <= bound then
      bucket = place
      break
    end
  end
  redis.call('HINCRBY', key('runs'), job.kind .. ':' .. bucket, 1)
  redis.call('HINCRBY', key('runs'), job.kind .. ':sum', milliseconds)
end
