-- Jobs with children: batches, which end with their last child, and jobs that await one child at a time.

-- Adds the next ended children to what `tally` holds of the others: by state, as JSON; of the failed ones
-- also what a problem document shows. Returns whether these were the last.
local function tally(parent)
  local at, after = key('tally', parent), read(parent, 'sweep_after')
  local children = redis.call('ZRANGEBYLEX', key('children', parent), after and '(' .. after or '-', '+',
    'LIMIT', 0, tally_size)
  local ends = {succeeded = {}, failed = {}, cancelled = {}, errors = {}}
  local names, failed = {}, tonumber((read(parent, 'failed_number'))) or 0
  for _, child in ipairs(children) do
    local state, model, error, bytes, queue, cut = peek(child, 'state', 'model', 'error', 'bytes', 'queue', 'cut')
    if ends[state] then
      -- As they were written: decoded and encoded, an empty list would be an object.
      local item = string.format('{"job_id":"%s","model_name":%s', child, cjson.encode(model))
      if error then item = item .. ',"error":' .. error end
      local result = redis.call('GET', key('result', child))
      if result then item = item .. ',"result":' .. result end
      table.insert(ends[state], item .. '}')
    end
    if state == 'failed' then
      failed = failed + 1
      table.insert(ends.errors, cjson.encode({field = model, detail = cjson.decode(error).detail}))
      if failed <= 10 then table.insert(names, model) end
    end
    if (state == 'failed' or state == 'cancelled') and not cut then
      increase(parent, 'again_jobs', 1)
      increase(parent, 'again_bytes', bytes)
      write(parent, 'again_queue', queue)
    end
  end
  ends.names = names
  for name, items in pairs(ends) do
    local list = at .. ':' .. name
    local separator = name == 'names' and ', ' or ','
    if #items > 0 then
      local before = redis.call('EXISTS', list) == 1 and separator or name == 'succeeded' and '{"succeeded":[' or ''
      redis.call('APPEND', list, before .. table.concat(items, separator))
    end
  end
  if failed > 0 then write(parent, 'failed_number', failed) end
  if #children > 0 then write(parent, 'sweep_after', children[#children]) end
  return #children < tally_size
end

local function forget_tally(parent)
  local at = key('tally', parent)
  redis.call('DEL', at .. ':succeeded', at .. ':failed', at .. ':cancelled', at .. ':errors', at .. ':names')
  clear(parent, 'failed_number')
end

local function end_batch(parent)
  local at = key('tally', parent)
  local function held(name) return redis.call('GET', at .. ':' .. name) or '' end
  local failed, cancelled = tonumber((read(parent, 'failed_number')) or 0), held('cancelled')
  -- Results of children may be megabytes, so they do not come here.
  local result = key('result', parent)
  if redis.call('EXISTS', at .. ':succeeded') == 1 then
    redis.call('RENAME', at .. ':succeeded', result)
  else
    redis.call('SET', result, '{"succeeded":[')
  end
  redis.call('APPEND', result, table.concat({'],"failed":[', held('failed'), '],"cancelled":[', cancelled, ']}'}))
  local error = ''
  if failed > 0 then
    local shown = held('names') .. (failed > 10 and ', …' or '')
    local total = redis.call('ZCARD', key('children', parent))
    error = string.format('{"code":"batch_incomplete","detail":%s,"retryable":false,"errors":[',
      cjson.encode(string.format('%d of %d failed: %s', failed, total, shown))) .. held('errors') .. ']}'
  end
  forget_tally(parent)
  if failed > 0 then
    finish(parent, 'failed', '', error)
  elseif cancelled ~= '' or read(parent, 'cancel_requested') then
    finish(parent, 'cancelled', '', '')
  else
    finish(parent, 'succeeded', '', '')
  end
end

-- ── sweeps ──────────────────────────────────────────────────────────────────
-- What is done with all children is a sweep: `sweep` names it, `sweep_after` is the last child that it
-- reached, `unswept` is the number of children that are still to be written or revived and that count
-- as pending already. The caller and the reconciler continue it until it is done.
local function begin_sweep(parent, sweep, unswept)
  clear(parent, 'sweep_after')
  write(parent, 'sweep', sweep, 'unswept', unswept)
  due(parent, now + 1000)
end

-- All children have ended. A small batch ends at once, a large one piece by piece.
local function conclude(parent)
  forget_tally(parent)
  clear(parent, 'again_jobs', 'again_bytes')
  begin_sweep(parent, 'conclude', 0)
  if tally(parent) then return end_batch(parent) end
  due(parent, now)
end

-- The child that a job awaits has ended: the job is queued again, with fresh attempts, to go on.
local function go_on(parent, child)
  local awaits, lease_until, cancelled = read(parent, 'awaits', 'lease_until', 'cancel_requested')
  if awaits ~= child or lease_until then return end
  if cancelled then return finish(parent, 'cancelled', '', '') end
  write(parent, 'attempts', 0, 'crashes', 0)
  enqueue(parent, now)
end

local function count_ended(parent, number)
  local pending = increase(parent, 'pending', -number)
  local total = tonumber((read(parent, 'children_total')))
  local progress = cjson.encode({completed = total - pending, total = total, unit = 'jobs', message = ''})
  write(parent, 'progress', progress)
  emit(parent, 'progress', progress)
  if pending <= 0 then conclude(parent) end
end

child_ended = function(parent, child) -- rare
  local state, queue = read(parent, 'state', 'queue')
  if state ~= 'running' then return end
  if queue then go_on(parent, child) else count_ended(parent, 1) end
end

local function write_piece(parent)
  local piece = redis.call('LPOP', key('pieces', parent))
  if not piece then return true end
  local jobs = cjson.decode(piece)
  for _, job in ipairs(jobs) do
    put(job.fields, job.request, job.input)
    enqueue(job.fields.id, now)
  end
  increase(parent, 'unswept', -#jobs)
  return redis.call('EXISTS', key('pieces', parent)) == 0
end

local function cancel_child(child)
  local state = read(child, 'state')
  if state == 'queued' then
    finish(child, 'cancelled', '', '')
  elseif state == 'running' then
    write(child, 'cancel_requested', 1)
  end
end

local function revive_child(child, parent)
  local state, cut = read(child, 'state', 'cut')
  if cut or state ~= 'failed' and state ~= 'cancelled' then return end
  reset(child)
  enqueue(child, now)
  increase(parent, 'unswept', -1)
end

local function sweep_children(parent, apply)
  local after = read(parent, 'sweep_after')
  local children = redis.call('ZRANGEBYLEX', key('children', parent), after and '(' .. after or '-', '+',
    'LIMIT', 0, piece_size)
  if #children > 0 then write(parent, 'sweep_after', children[#children]) end
  for _, child in ipairs(children) do apply(child, parent) end
  return #children < piece_size
end

-- Does one piece. Returns whether more is to be done.
local function sweep(parent)
  local state, name = read(parent, 'state', 'sweep')
  if not name or not open(state) then return false end
  local done
  if name == 'write' then
    done = write_piece(parent)
  elseif name == 'cancel' then
    done = sweep_children(parent, cancel_child)
  elseif name == 'revive' then
    done = sweep_children(parent, revive_child)
  elseif tonumber((read(parent, 'pending'))) > 0 then
    -- A client revived a child meanwhile: its end concludes the batch.
    done = true
  elseif tally(parent) then
    end_batch(parent)
  end
  -- The parent may have ended with its last child, or have begun to.
  local unswept, pending, present = read(parent, 'unswept', 'pending', 'sweep')
  if done and present == name then
    clear(parent, 'sweep', 'sweep_after', 'unswept')
    -- A child that a client revived by itself meanwhile is not to be waited for twice.
    unswept = tonumber(unswept) or 0
    if unswept > 0 or tonumber(pending) <= 0 then count_ended(parent, unswept) end
  end
  if not open((read(parent, 'state'))) then return false end
  local more = read(parent, 'sweep') ~= false
  due(parent, more and now + 1000 or now + parked)
  return more
end
