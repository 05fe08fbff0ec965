-- All that counts.py shows, at one moment.
-- Returns {events, runs, queues, request bytes, jobs that wait by service}; of a queue {name, jobs queued, milliseconds since the oldest came}.
local queues = {}
for _, name in ipairs(redis.call('SMEMBERS', key('queues'))) do
  local ready, oldest = key('ready', name), now + 1
  -- Ordered by priority first, so each priority has an oldest of its own.
  for priority = 0, 9 do
    local from = string.format('%.0f', priority * 1e13)
    local to = string.format('(%.0f', (priority + 1) * 1e13)
    local first = redis.call('ZRANGEBYSCORE', ready, from, to, 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] then oldest = math.min(oldest, first[2] - priority * 1e13) end
  end
  table.insert(queues, {name, redis.call('ZCARD', ready), now - oldest})
end
local bytes = tonumber(redis.call('GET', key('request_bytes')) or 0)
return {redis.call('HGETALL', key('counts')), redis.call('HGETALL', key('runs')), queues, bytes,
  redis.call('HGETALL', key('outages'))}
