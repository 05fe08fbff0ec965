-- Put before every script, behind the ledger's settings as locals: lease, republish, backoff, grace and
-- retention in milliseconds, max_crashes, events_max. KEYS[1] is the prefix of all keys. Times are
-- milliseconds of Redis' clock.
local prefix = KEYS[1]

local function key(...)
  return table.concat({prefix, ...}, ':')
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read(id, ...)
  return unpack(redis.call('HMGET', key('job', id), ...))
end

local function write(id, ...)
  redis.call('HSET', key('job', id), ...)
end

local function emit(id, event, data)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', events_max, '*', 'event', event, 'data', data)
end

local function index(id, field, value)
  if value and value ~= '' then redis.call('ZADD', key('by', field, value), 0, id) end
end

local function unindex(id, field, value)
  if value and value ~= '' then redis.call('ZREM', key('by', field, value), id) end
end

local function due(id, at)
  redis.call('ZADD', key('due'), at, id)
end

local function sooner(at, limit)
  limit = tonumber(limit)
  if limit and limit < at then return limit end
  return at
end

-- The only place where a state changes.
local function move(id, to)
  local from, queue, priority, created, attempts =
    read(id, 'state', 'queue', 'priority', 'created_at', 'attempts')
  if from then unindex(id, 'state', from) end
  index(id, 'state', to)
  if queue and queue ~= '' then
    if to == 'queued' then
      redis.call('ZADD', key('ready', queue), priority * 1e13 + created, id)
    else
      redis.call('ZREM', key('ready', queue), id)
    end
  end
  write(id, 'state', to)
  emit(id, 'state', cjson.encode({state = to, attempt = tonumber(attempts)}))
end

local function enqueue(id, available, now)
  write(id, 'available_at', available, 'lease_until', '', 'owner', '')
  move(id, 'queued')
  local at = available > now and available or now + republish
  due(id, sooner(at, (read(id, 'deadline'))))
end

local settle

-- The only place where a job ends. `result` and `error` are JSON or ''.
local function finish(id, state, now, result, error)
  write(id, 'finished_at', now, 'lease_until', '', 'result', result, 'error', error)
  move(id, state)
  due(id, now + retention)
  emit(id, 'done', cjson.encode({state = state}))
  local parent = read(id, 'parent_id')
  if parent and parent ~= '' then settle(parent, now) end
end

local function failure(code, detail)
  return cjson.encode({code = code, detail = detail, retryable = false})
end

local function json_list(items)
  return '[' .. table.concat(items, ',') .. ']'
end

-- What became of each child, by its end; and of the failed ones what a problem document shows.
local function tally(parent)
  local ends = {succeeded = {}, failed = {}, cancelled = {}}
  local errors, names = {}, {}
  local children = redis.call('ZRANGE', key('children', parent), 0, -1)
  for _, child in ipairs(children) do
    local state, model, error, result = read(child, 'state', 'model', 'error', 'result')
    if ends[state] then
      local item = {job_id = child, model_name = model}
      if error and error ~= '' then item.error = cjson.decode(error) end
      if result and result ~= '' then item.result = cjson.decode(result) end
      table.insert(ends[state], cjson.encode(item))
      if state == 'failed' then
        table.insert(errors, cjson.encode({field = model, detail = item.error.detail}))
        table.insert(names, model)
      end
    end
  end
  return ends, errors, names, #children
end

local function conclude(parent, now)
  local ends, errors, names, total = tally(parent)
  local result = string.format('{"succeeded":%s,"failed":%s,"cancelled":%s}',
    json_list(ends.succeeded), json_list(ends.failed), json_list(ends.cancelled))
  if #names > 0 then
    local shown = table.concat(names, ', ', 1, math.min(#names, 10))
    if #names > 10 then shown = shown .. ', …' end
    local detail = string.format('%d of %d failed: %s', #names, total, shown)
    local error = string.format('{"code":"batch_incomplete","detail":%s,"retryable":false,"errors":%s}',
      cjson.encode(detail), json_list(errors))
    finish(parent, 'failed', now, result, error)
  elseif #ends.cancelled > 0 then
    finish(parent, 'cancelled', now, result, '')
  else
    finish(parent, 'succeeded', now, result, '')
  end
end

-- A child ended: the parent counts it, and ends with its last one.
settle = function(parent, now)
  if read(parent, 'state') ~= 'running' then return end
  local pending = redis.call('HINCRBY', key('job', parent), 'pending', -1)
  local total = redis.call('ZCARD', key('children', parent))
  local progress = cjson.encode(
    {completed = total - pending, total = total, unit = 'jobs', message = ''})
  write(parent, 'progress', progress)
  emit(parent, 'progress', progress)
  if pending <= 0 then conclude(parent, now) end
end
