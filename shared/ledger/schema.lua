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
--   pulse, amnesty          string  when the last reconciliation was; until when leases are not taken away
local prefix = KEYS[1]

local ended = {succeeded = true, failed = true, cancelled = true}

local function key(family, name, ...)
  if not name then return prefix .. ':' .. family end
  if not ... then return prefix .. ':' .. family .. ':' .. name end
  return table.concat({prefix, family, name, ...}, ':')
end

-- A job's hash is read once in a call, and what changed is written once at its end.
local loaded, changed = {}, {}

local function load_hash(at)
  local fields, flat = {}, redis.call('HGETALL', at)
  for place = 1, #flat, 2 do fields[flat[place]] = flat[place + 1] end
  return fields
end

local function load_job(id)
  local job = loaded[id]
  if job then return job end
  job = load_hash(key('job', id))
  loaded[id] = job
  return job
end

-- The values of some fields, false where there is none.
local function read(id, ...)
  local job, values = load_job(id), {...}
  for place, field in ipairs(values) do values[place] = job[field] or false end
  return unpack(values)
end

-- The same for a job of which nothing else is needed.
local function peek(id, ...)
  if loaded[id] then return read(id, ...) end
  return unpack(redis.call('HMGET', key('job', id), ...))
end

local function set(id, field, value)
  if type(value) == 'number' then value = string.format(value % 1 == 0 and '%.0f' or '%.17g', value) end
  load_job(id)[field] = value or nil
  local fields = changed[id]
  if fields then fields[field] = true else changed[id] = {[field] = true} end
end

local function write(id, ...)
  local pairs_of = {...}
  for place = 1, #pairs_of, 2 do set(id, pairs_of[place], pairs_of[place + 1]) end
end

local function clear(id, ...)
  local job = load_job(id)
  for _, field in ipairs({...}) do
    if job[field] then set(id, field, false) end
  end
end

local function increase(id, field, by)
  local value = (tonumber((read(id, field))) or 0) + by
  set(id, field, value)
  return value
end

local function exists(id)
  return next(load_job(id)) ~= nil
end

local function flush()
  for id, fields in pairs(changed) do
    local job, written, cleared = loaded[id], {}, {}
    local last = 0
    for field in pairs(fields) do
      local value = job[field]
      if value then
        written[last + 1], written[last + 2] = field, value
        last = last + 2
      else
        cleared[#cleared + 1] = field
      end
    end
    if last > 0 then redis.call('HSET', key('job', id), unpack(written)) end
    if #cleared > 0 then redis.call('HDEL', key('job', id), unpack(cleared)) end
  end
end

local function open(state)
  return (state and not ended[state]) or false
end

-- Looks at a job at a time, or earlier where one of the limits is earlier.
local function due(id, at, ...)
  for _, limit in ipairs({...}) do
    limit = tonumber(limit)
    if limit and limit < at then at = limit end
  end
  redis.call('ZADD', key('due'), at, id)
end

local function append_event(id, event, data)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', events_max, '*', 'event', event, 'data', data)
end

-- Appends an event for the job's followers, if there are any.
local function emit(id, event, data)
  if read(id, 'followed') == '1' then append_event(id, event, data) end
end

-- A job's places in the indices that listings read, for one state.
local function indices(kind, state, model, submitter)
  local base = key('jobs', kind, state)
  local found = {base}
  if model ~= '' then table.insert(found, base .. ':model:' .. model) end
  if submitter ~= '' then
    table.insert(found, base .. ':submitter:' .. submitter)
    if model ~= '' then table.insert(found, base .. ':both:' .. submitter .. ':' .. model) end
  end
  return found
end

-- Queues of one host are counted together with those of all hosts.
local function count(event, kind, queue, by)
  local counted = string.match(queue, '^[^.]*')
  redis.call('HINCRBY', key('counts'), table.concat({event, kind, counted}, ':'), by or 1)
end

local function count_job(id, event)
  local kind, queue = read(id, 'kind', 'queue')
  count(event, kind, queue or '')
end

-- Counts the run that ends now. A batch has no runs: nobody claims it.
local function end_run(id)
  local kind, claimed = read(id, 'kind', 'claimed_at')
  if not claimed then return end
  clear(id, 'claimed_at')
  local milliseconds = now - claimed
  local bucket = #run_bounds + 1
  for place, bound in ipairs(run_bounds) do
    if milliseconds <= bound then
      bucket = place
      break
    end
  end
  redis.call('HINCRBY', key('runs'), kind .. ':' .. bucket, 1)
  redis.call('HINCRBY', key('runs'), kind .. ':sum', milliseconds)
end
