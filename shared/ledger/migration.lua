-- Adoption of the jobs of schema 1, whose keys begin with PREFIX alone. There a field without a value was
-- '', `request` and `result` were fields of the hash, `jobs` held all ids, and the `due` time of an ended job
-- was when to forget it. What is adopted is deleted there in the same call, so no job is adopted twice, and a
-- worker of that schema can do nothing more with it.

-- Fields of the old hash that the new one has not, or that are written for it here.
local not_copied = {request = true, result = true, lane = true, lease_until = true, pending = true}

local function read_old(at, id)
  local job, flat = {}, redis.call('HGETALL', at('job', id))
  for place = 1, #flat, 2 do
    if flat[place + 1] ~= '' then job[flat[place]] = flat[place + 1] end
  end
  if job.cancel_requested == '0' then job.cancel_requested = nil end
  return job
end

-- Whether a worker that is alive runs the job: two runs at once would be worse than to wait for its end.
local function is_held(at, job)
  local lease_until = tonumber(job.lease_until)
  return job.state == 'running' and lease_until and lease_until > now
    and redis.call('EXISTS', at('worker', job.owner or '')) == 1
end

local function adopt_events(at, id, state, finished_at)
  local left = ended[state] and finished_at + events_kept - now or events_kept
  if left <= 0 or redis.call('EXISTS', at('events', id)) == 0 then return end
  redis.call('RENAME', at('events', id), key('events', id))
  if ended[state] then redis.call('PEXPIRE', key('events', id), left) end
  write(id, 'followed', 1)
end

local function adopt_record(at, id, job)
  for field, value in pairs(job) do
    if not not_copied[field] then write(id, field, value) end
  end
  write(id, 'bytes', #job.request)
  redis.call('SET', key('request', id), job.request)
  if job.result then redis.call('SET', key('result', id), job.result) end
  if job.idempotency_key then redis.call('SET', key('idempotency', job.idempotency_key), id, 'NX') end
  adopt_events(at, id, job.state, tonumber(job.finished_at))
  if redis.call('EXISTS', at('children', id)) == 1 then
    redis.call('RENAME', at('children', id), key('children', id))
  end
  if job.parent_id then redis.call('ZADD', key('children', job.parent_id), 0, id) end
  if job.queue then redis.call('SADD', key('queues'), job.queue) end
end

-- Puts the job where its state has it, without counting it as a change of state.
local function adopt_state(id, job)
  local queue, submitter = job.queue or '', job.submitter or ''
  for _, index in ipairs(indices(job.kind, job.state, job.model or '', submitter)) do
    redis.call('ZADD', index, 0, id)
  end
  if job.state == 'queued' then
    redis.call('ZADD', key('ready', queue), job.priority * 1e13 + job.created_at, id)
    add_queued(submitter, 1)
  end
  if not open(job.state) then return end
  redis.call('INCRBY', key('request_bytes'), #job.request)
  local outage = outage_of(id)
  if outage and not outage.copy then count_waiting(outage.service, 1) end
end

-- The worker that ran the job is gone. Whether it was stopped for the upgrade or crashed is not known, so the
-- run counts as neither an attempt nor a crash: a job that takes workers down is counted at its next run.
local function take_back(id, job)
  if job.cancel_requested then return finish(id, 'cancelled', '', '') end
  count_job(id, 'returned')
  increase(id, 'attempts', -1)
  give_back(id, now)
end

local function go_on_adopted(at, id, job)
  if job.state == 'queued' then
    local available = tonumber(job.available_at)
    if available <= now then return make_available(id) end
    due(id, available, job.deadline, job.start_by)
  elseif ended[job.state] then
    local forget_at = redis.call('ZSCORE', at('due'), id) or now + retention
    redis.call('ZADD', key('expiries'), forget_at, id)
    -- Its parent is adopted with all children pending.
    if job.parent_id then child_ended(job.parent_id, id) end
  elseif job.lease_until then
    take_back(id, job)
  else
    local children = redis.call('ZCARD', key('children', id))
    if not job.queue then write(id, 'pending', children, 'children_total', children) end
    due(id, now + parked, job.deadline)
  end
end

local function delete_old(at, id, job)
  redis.call('DEL', at('job', id), at('events', id))
  if job.idempotency_key then redis.call('DEL', at('idempotency', job.idempotency_key)) end
  for _, field in ipairs({'state', 'kind', 'model', 'submitter'}) do
    if job[field] then redis.call('ZREM', at('by', field, job[field]), id) end
  end
  if job.queue then redis.call('ZREM', at('ready', job.queue), id) end
  if job.lane then
    redis.call('ZREM', at('waiting', job.lane), id)
    redis.call('ZREM', at('hinted', job.lane), id)
  end
  redis.call('ZREM', at('due'), id)
  redis.call('ZREM', at('jobs'), id)
end

-- A parent comes before its children, whose ends it counts. Returns how many jobs were adopted.
local function adopt_job(at, id)
  local job = read_old(at, id)
  if not job.state then
    redis.call('ZREM', at('jobs'), id)
    return 0
  end
  local parents, parent = 0, job.parent_id and at('job', job.parent_id)
  if parent and redis.call('EXISTS', parent) == 1 then
    parents = adopt_job(at, job.parent_id)
    if redis.call('EXISTS', parent) == 1 then return parents end
  end
  if is_held(at, job) then return parents end
  adopt_record(at, id, job)
  adopt_state(id, job)
  go_on_adopted(at, id, job)
  delete_old(at, id, job)
  return parents + 1
end

local function keys_of(old)
  return function(...) return table.concat({old, ...}, ':') end
end

-- old prefix, the last id of the piece before or '', limit.
-- Returns {last id of this piece or '', jobs adopted}.
function operations.adopt(old, after, limit)
  local at, adopted = keys_of(old), 0
  local from = after ~= '' and '(' .. after or '-'
  local ids = redis.call('ZRANGEBYLEX', at('jobs'), from, '+', 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do adopted = adopted + adopt_job(at, id) end
  return {ids[#ids] or '', adopted}
end

local function add_up(at, name)
  local numbers = redis.call('HGETALL', at(name))
  for place = 1, #numbers, 2 do
    -- Queues of one host are counted together.
    local field = string.gsub(numbers[place], '^(%a+:[%a_]+:[^.]*).*$', '%1')
    redis.call('HINCRBY', key(name), field, numbers[place + 1])
  end
  redis.call('DEL', at(name))
end

local function delete_celery_lists(queue)
  local lists = {queue, '_kombu.binding.' .. queue, '_kombu.binding_permanent.' .. queue}
  for _, priority in ipairs({3, 6, 9}) do table.insert(lists, queue .. '\6\22' .. priority) end
  redis.call('DEL', unpack(lists))
end

-- old prefix. What is not a job: counters, handlers of GPU workers, messages of Celery.
-- Returns how many jobs are still to be adopted.
function operations.adopt_rest(old)
  local at = keys_of(old)
  add_up(at, 'counts')
  add_up(at, 'runs')
  redis.call('ZUNIONSTORE', key('handlers'), 2, key('handlers'), at('handlers'), 'AGGREGATE', 'MAX')
  redis.call('DEL', at('handlers'))
  for _, queue in ipairs(redis.call('SMEMBERS', at('queues'))) do delete_celery_lists(queue) end
  for _, queue in ipairs({'downloads', 'uploads', 'registrations', 'inference', 'inference-ollama'}) do
    delete_celery_lists(queue)
  end
  for _, kind in ipairs({'front', 'cpu', 'gpu', 'ollama'}) do
    redis.call('DEL', 'unacked.' .. kind, 'unacked_index.' .. kind)
  end
  local left = redis.call('ZCARD', at('jobs'))
  if left == 0 then
    redis.call('DEL', at('queues'), at('drain'), at('queued_by'), at('request_bytes'), at('outages'))
  end
  return left
end
