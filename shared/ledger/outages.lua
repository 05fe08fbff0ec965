-- A job whose service does not answer waits for it: `waiting_for` is the service, since when it was missed,
-- the last reason, how many tries there were, and how long these moved bytes. A job that awaits such a
-- child shows the same, as a copy, which is not counted.

-- Bytes move while the reports of a job's run follow each other within this time.
local moving = 5000

local function outage_of(id)
  local text = read(id, 'waiting_for')
  return text and text ~= '' and cjson.decode(text) or nil
end

local function count_waiting(service, by)
  if redis.call('HINCRBY', key('outages'), service, by) == 0 then
    redis.call('HDEL', key('outages'), service)
  end
end

local function awaiting_parent(id)
  local parent = read(id, 'parent_id')
  if not parent or parent == '' then return nil end
  local state, awaits = read(parent, 'state', 'awaits')
  return state == 'running' and awaits == id and parent or nil
end

local function end_outage(id)
  local outage = outage_of(id)
  if not outage then return end
  write(id, 'waiting_for', '')
  if not outage.copy then count_waiting(outage.service, -1) end
  local parent = awaiting_parent(id)
  if parent then write(parent, 'waiting_for', '') end
end

local function set_outage(id, outage)
  local before = outage_of(id)
  if before then count_waiting(before.service, -1) end
  count_waiting(outage.service, 1)
  write(id, 'waiting_for', cjson.encode(outage))
  local parent = awaiting_parent(id)
  if parent then
    outage.copy = true
    write(parent, 'waiting_for', cjson.encode(outage))
  end
end

-- How far progress is: what it counts, and how many of them.
local function position(progress)
  if not progress or progress == '' then return '', 0 end
  local decoded = cjson.decode(progress)
  return decoded.unit, decoded.completed
end

-- A job that gets further than it ever was does not wait any more. To get as far as before is no
-- progress: a service that takes bytes and then fails is as good as away.
local function end_outage_after(id, progress)
  local unit, completed = position(progress)
  local farthest_unit, farthest = position((read(id, 'farthest')))
  if unit == farthest_unit and completed <= farthest then return end
  write(id, 'farthest', progress)
  end_outage(id)
end

-- A service that takes or gives bytes which the job had moved before is not away meanwhile.
local function count_work(id)
  local outage, reported, claimed = outage_of(id), read(id, 'reported_at', 'claimed_at')
  write(id, 'reported_at', now)
  local last, began = tonumber(reported or ''), tonumber(claimed or '')
  if not outage or not last or not began or last < began or now - last > moving then return end
  outage.worked = (outage.worked or 0) + now - last
  write(id, 'waiting_for', cjson.encode(outage))
end
