-- ARGV: the new jobs (JSON list of flat objects, a parent first), idempotency key, fingerprint.
-- Returns {'accepted', the first job's hash, its position}, {'existing' or 'conflict', job id} or
-- {'refused', what keeps them out}.
local jobs = cjson.decode(ARGV[1])
local idempotency_key, fingerprint = ARGV[2], ARGV[3]
local first = jobs[1].id

if redis.call('EXISTS', key('job', first)) == 1 then return {'existing', first} end
if idempotency_key ~= '' then
  local held = redis.call('GET', key('idempotency', idempotency_key))
  if held then
    local same = read(held, 'fingerprint') == fingerprint
    return {same and 'existing' or 'conflict', held}
  end
end

local asked = {}
for place, job in ipairs(jobs) do
  asked[place] = {queue = job.queue, submitter = job.submitter, bytes = #job.request}
end
local refused = refusal(asked)
if refused then
  count('refused', jobs[1].kind, jobs[1].queue)
  return {'refused', cjson.encode(refused)}
end
if idempotency_key ~= '' then
  redis.call('SET', key('idempotency', idempotency_key), first)
end

for _, job in ipairs(jobs) do
  local id = job.id
  put(job)
  if id == first and #jobs > 1 then
    -- A parent waits for its children and is never claimed.
    write(id, 'available_at', now, 'started_at', now, 'pending', #jobs - 1)
    move(id, 'running')
    wait(id, '')
  else
    enqueue(id, now)
  end
end
write(first, 'idempotency_key', idempotency_key, 'fingerprint', fingerprint)
return {'accepted', redis.call('HGETALL', key('job', first)), redis.call('ZRANK', key('ready', jobs[1].queue), first)}
