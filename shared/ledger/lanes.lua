-- A lane holds the queued jobs of one submitter, one of Celery's priorities and one queue; those that must
-- run alone have lanes of their own. Its first jobs, as many as the window has places, are hinted: Celery
-- has a message of each. The others wait. So nobody's thousands stand before another's one.
local touched, offered = {}, {}

local function wake(id, at)
  local deadline, start_by = read(id, 'deadline', 'start_by')
  due(id, sooner(sooner(at, deadline), start_by))
end

local function line_up(id)
  local queue, priority, submitter, crashes, created =
    read(id, 'queue', 'priority', 'submitter', 'crashes', 'created_at')
  local company = tonumber(crashes) >= quarantine_crashes and 'alone' or 'shared'
  local lane = table.concat({queue, math.floor(priority / 3) * 3, company, submitter or ''}, ':')
  write(id, 'lane', lane)
  redis.call('ZADD', key('waiting', lane), priority * 1e13 + created, id)
  wake(id, now + parked)
  touched[lane] = true
end

local function step_out(id)
  local lane = read(id, 'lane')
  if not lane or lane == '' then return end
  redis.call('ZREM', key('waiting', lane), id)
  redis.call('ZREM', key('hinted', lane), id)
  write(id, 'lane', '')
  touched[lane] = true
end

local function offer(id)
  table.insert(offered, id)
  wake(id, now + republish)
end

-- A job that is available was looked at: its hint may be lost, or a place free.
local function look_after(id)
  local lane = read(id, 'lane')
  if not lane or lane == '' then
    line_up(id)
  elseif redis.call('ZSCORE', key('hinted', lane), id) then
    offer(id)
  else
    touched[lane] = true
    wake(id, now + parked)
  end
end

local function refill(lane)
  local free = window - redis.call('ZCARD', key('hinted', lane))
  if free <= 0 then return end
  local first = redis.call('ZPOPMIN', key('waiting', lane), free)
  for place = 1, #first, 2 do
    redis.call('ZADD', key('hinted', lane), first[place + 1], first[place])
    offer(first[place])
  end
end

-- Put behind every operation: fills the places that it left, and returns the hints to be published.
local function hints()
  for lane in pairs(touched) do refill(lane) end
  local found = {}
  for _, id in ipairs(offered) do
    local lane, kind, model, queue, priority = read(id, 'lane', 'kind', 'model', 'queue', 'priority')
    if lane and lane ~= '' then table.insert(found, {id, kind, model, queue, priority}) end
  end
  return found
end
