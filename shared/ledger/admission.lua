-- Bounds on what waits. `drain` holds for each queue when a job last left it, and the usual gap between two.
local longest_gap = 60000

local function observe_claim(queue)
  local last, gap = unpack(redis.call('HMGET', key('drain'), queue .. ':last', queue .. ':gap'))
  if last then
    local sample = math.min(now - last, longest_gap)
    redis.call('HSET', key('drain'), queue .. ':gap', gap and 0.8 * gap + 0.2 * sample or sample)
  end
  redis.call('HSET', key('drain'), queue .. ':last', now)
end

-- When so many jobs may have left a queue, in milliseconds; -1 if nothing is known.
local function wait_for(queue, jobs)
  local last, gap = unpack(redis.call('HMGET', key('drain'), queue .. ':last', queue .. ':gap'))
  if not gap then return -1 end
  return math.ceil(jobs * math.max(gap, math.min(now - last, longest_gap)))
end

local function over(limit, name, most, present, asked, queue, jobs)
  if present + asked <= most then return end
  return {limit = limit, name = name, most = most, present = present, asked = asked,
    wait = wait_for(queue, jobs or present + asked - most)}
end

-- What keeps these jobs out, each {queue, submitter, bytes}; nil if there is room for all of them.
local function refusal(jobs)
  local bytes, queues, submitters = 0, {}, {}
  for _, job in ipairs(jobs) do
    bytes = bytes + job.bytes
    if job.queue ~= '' then
      queues[job.queue] = (queues[job.queue] or 0) + 1
      if job.submitter ~= '' then
        submitters[job.submitter] = (submitters[job.submitter] or 0) + 1
      end
    end
  end
  local queue = jobs[#jobs].queue
  for name, asked in pairs(queues) do
    local found = over('queue', name, max_queued, redis.call('ZCARD', key('ready', name)), asked, name)
    if found then return found end
  end
  for name, asked in pairs(submitters) do
    local present = tonumber(redis.call('HGET', key('queued_by'), name) or 0)
    local found = over('submitter', name, max_queued_per_submitter, present, asked, queue)
    if found then return found end
  end
  local present = tonumber(redis.call('GET', key('request_bytes')) or 0)
  return over('bytes', '', max_request_bytes, present, bytes, queue, #jobs)
end
