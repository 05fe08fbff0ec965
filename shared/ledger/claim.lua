-- ARGV: id, owner, nonce of this claim. Returns whether the job is now the owner's.
local id, owner, nonce = ARGV[1], ARGV[2], ARGV[3]
local state, available, deadline, claimed, started =
  read(id, 'state', 'available_at', 'deadline', 'nonce', 'started_at')

-- The reply to this very claim was lost on its way, and it is asked again.
if state == 'running' and claimed == nonce then return 1 end
if state ~= 'queued' or tonumber(available) > now then return 0 end
if deadline and tonumber(deadline) <= now then return 0 end

redis.call('HINCRBY', key('job', id), 'fence', 1)
redis.call('HINCRBY', key('job', id), 'attempts', 1)
write(id, 'owner', owner, 'nonce', nonce, 'lease_until', now + lease, 'claimed_at', now)
if not started or started == '' then write(id, 'started_at', now) end
move(id, 'running')
due(id, sooner(now + lease, deadline))
return 1
