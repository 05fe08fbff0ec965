local ended = {succeeded = true, failed = true, cancelled = true}

-- What a change of state is called where changes are counted; nil for those counted where they are made.
local function change(from, to)
  if not from then return 'accepted' end
  if ended[to] then return to end
  if ended[from] then return 'revived' end
end

-- The only place where a state changes.
local function move(id, to)
  local from, kind, queue, priority, created, attempts, claimed =
    read(id, 'state', 'kind', 'queue', 'priority', 'created_at', 'attempts', 'claimed_at')
  if from then unindex(id, 'state', from) end
  index(id, 'state', to)
  if queue ~= '' then
    if to == 'queued' then
      redis.call('ZADD', key('ready', queue), priority * 1e13 + created, id)
    else
      redis.call('ZREM', key('ready', queue), id)
    end
  end
  local event = change(from, to)
  if event then count(event, kind, queue) end
  if from == 'running' and claimed then observe_run(kind, now - claimed) end
  write(id, 'state', to)
  emit(id, 'state', cjson.encode({state = to, attempt = tonumber(attempts)}))
end

local function enqueue(id, available)
  write(id, 'available_at', available, 'lease_until', '', 'owner', '')
  move(id, 'queued')
  local at = available > now and available or now + republish
  due(id, sooner(at, (read(id, 'deadline'))))
end

local settle

-- The only place where a job ends. `result` and `error` are JSON or ''.
local function finish(id, state, result, error)
  write(id, 'finished_at', now, 'lease_until', '', 'result', result, 'error', error)
  move(id, state)
  due(id, now + retention)
  emit(id, 'done', cjson.encode({state = state}))
  local parent = read(id, 'parent_id')
  if parent and parent ~= '' then settle(parent) end
end

local function fail(id, code, detail)
  finish(id, 'failed', '', cjson.encode({code = code, detail = detail, retryable = false}))
end

