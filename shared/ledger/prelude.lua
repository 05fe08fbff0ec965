-- Put before every script, behind what scripts.py derives from the settings: `now`, and as locals lease,
-- republish, parked, backoff, grace and retention, all in milliseconds. KEYS[1] is the prefix of all keys.
local prefix = KEYS[1]

local function key(...)
  return table.concat({prefix, ...}, ':')
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
