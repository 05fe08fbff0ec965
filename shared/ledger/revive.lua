-- ARGV: id. Returns {outcome, state}: revived, refused, forgotten or unknown; or {full, what keeps it out}.
local id = ARGV[1]

local function reopen(parent, pending, awaits)
  reset(parent)
  write(parent, 'started_at', now, 'pending', pending)
  move(parent, 'running')
  wait(parent, awaits)
end

local function asked(job)
  local queue, submitter, request = read(job, 'queue', 'submitter', 'request')
  return {queue = queue, submitter = submitter or '', bytes = #request}
end

local state, parent, kind, queue = read(id, 'state', 'parent_id', 'kind', 'queue')
if not state then return {'unknown', ''} end
if state ~= 'failed' and state ~= 'cancelled' then return {'refused', state} end

-- A job with a queue finds out by itself which of its children it needs again.
local children = queue == '' and redis.call('ZRANGE', key('children', id), 0, -1) or {}
local again, wanted = {}, {asked(id)}
for _, child in ipairs(children) do
  local ended = read(child, 'state')
  if ended == 'failed' or ended == 'cancelled' then
    table.insert(again, child)
    table.insert(wanted, asked(child))
  end
end
-- A batch whose failed parts are forgotten cannot be made good.
if queue == '' and #again == 0 then return {'forgotten', state} end
local full = refusal(wanted)
if full then
  count('refused', kind, queue)
  return {'full', cjson.encode(full)}
end

if #again > 0 then
  for _, child in ipairs(again) do
    reset(child)
    enqueue(child, now)
  end
  reopen(id, #again, '')
  return {'revived', 'running'}
end

if parent and parent ~= '' and redis.call('EXISTS', key('job', parent)) == 1 then
  local its_state, its_queue = read(parent, 'state', 'queue')
  if its_queue ~= '' then
    if not open(its_state) then reopen(parent, 1, id) end
  elseif its_state == 'running' then
    redis.call('HINCRBY', key('job', parent), 'pending', 1)
  else
    reopen(parent, 1, '')
  end
end
-- Behind its parent, whose deadline it has.
reset(id)
enqueue(id, now)
return {'revived', 'queued'}
