-- ARGV: id. Returns {outcome, state}: revived, refused or unknown.
local id = ARGV[1]

local function reset(job)
  local lifetime = read(job, 'lifetime')
  write(job, 'attempts', 0, 'crashes', 0, 'error', '', 'result', '', 'progress', '',
    'finished_at', '', 'started_at', '', 'cancel_requested', 0)
  if lifetime then write(job, 'deadline', now + lifetime) end
  redis.call('DEL', key('events', job))
end

local function reopen(parent, pending)
  reset(parent)
  write(parent, 'started_at', now, 'pending', pending)
  move(parent, 'running')
  due(parent, now + republish)
end

local state, parent = read(id, 'state', 'parent_id')
if not state then return {'unknown', ''} end
if state ~= 'failed' and state ~= 'cancelled' then return {'refused', state} end

local children = redis.call('ZRANGE', key('children', id), 0, -1)
local revived = 0
for _, child in ipairs(children) do
  local ended = read(child, 'state')
  if ended == 'failed' or ended == 'cancelled' then
    reset(child)
    enqueue(child, now)
    revived = revived + 1
  end
end
if #children > 0 then
  reopen(id, revived)
  return {'revived', 'running'}
end

reset(id)
enqueue(id, now)
if parent and parent ~= '' and redis.call('EXISTS', key('job', parent)) == 1 then
  if read(parent, 'state') == 'running' then
    redis.call('HINCRBY', key('job', parent), 'pending', 1)
  else
    reopen(parent, 1)
  end
end
return {'revived', 'queued'}
