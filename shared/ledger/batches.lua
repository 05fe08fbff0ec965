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
      -- As they were written: decoded and encoded, an empty list would be an object.
      local item = string.format('{"job_id":%s,"model_name":%s', cjson.encode(child), cjson.encode(model))
      if error and error ~= '' then item = item .. ',"error":' .. error end
      if result and result ~= '' then item = item .. ',"result":' .. result end
      table.insert(ends[state], item .. '}')
      if state == 'failed' then
        table.insert(errors, cjson.encode({field = model, detail = cjson.decode(error).detail}))
        table.insert(names, model)
      end
    end
  end
  return ends, errors, names, #children
end

local function conclude(parent)
  local ends, errors, names, total = tally(parent)
  local result = string.format('{"succeeded":%s,"failed":%s,"cancelled":%s}',
    json_list(ends.succeeded), json_list(ends.failed), json_list(ends.cancelled))
  if #names > 0 then
    local shown = table.concat(names, ', ', 1, math.min(#names, 10))
    if #names > 10 then shown = shown .. ', …' end
    local detail = string.format('%d of %d failed: %s', #names, total, shown)
    local error = string.format('{"code":"batch_incomplete","detail":%s,"retryable":false,"errors":%s}',
      cjson.encode(detail), json_list(errors))
    finish(parent, 'failed', result, error)
  elseif #ends.cancelled > 0 then
    finish(parent, 'cancelled', result, '')
  else
    finish(parent, 'succeeded', result, '')
  end
end

-- The child that a job awaits has ended: the job is claimed again, with fresh attempts, to go on.
local function go_on(parent, child)
  local awaits, lease_until, cancelled = read(parent, 'awaits', 'lease_until', 'cancel_requested')
  if awaits ~= child or lease_until ~= '' then return end
  if cancelled == '1' then return finish(parent, 'cancelled', '', '') end
  write(parent, 'attempts', 0, 'crashes', 0)
  enqueue(parent, now)
end

-- A child ended: a job that awaits it goes on; a batch counts it, and ends with its last one.
settle = function(parent, child)
  local state, queue = read(parent, 'state', 'queue')
  if state ~= 'running' then return end
  if queue ~= '' then return go_on(parent, child) end
  local pending = redis.call('HINCRBY', key('job', parent), 'pending', -1)
  local total = redis.call('ZCARD', key('children', parent))
  local progress = cjson.encode(
    {completed = total - pending, total = total, unit = 'jobs', message = ''})
  write(parent, 'progress', progress)
  emit(parent, 'progress', progress)
  if pending <= 0 then conclude(parent) end
end
