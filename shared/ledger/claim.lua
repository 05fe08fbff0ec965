-- ARGV: id, owner, nonce of this claim, whether the job will run alone. Returns whether it is the owner's now.
local id, owner, nonce, alone = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local state, available, claimed, started, deadline, crashes, said =
  read(id, 'state', 'available_at', 'nonce', 'started_at', 'deadline', 'crashes', 'said')

-- The reply to this very claim was lost on its way, and it is asked again.
if state == 'running' and claimed == nonce then return 1 end
if state ~= 'queued' or tonumber(available) > now or give_up(id) then return 0 end
if tonumber(crashes) >= quarantine_crashes and not alone then return 0 end

redis.call('HINCRBY', key('job', id), 'fence', 1)
redis.call('HINCRBY', key('job', id), 'attempts', 1)
write(id, 'owner', owner, 'nonce', nonce, 'lease_until', now + lease, 'claimed_at', now, 'start_by', '',
  'error', '')
if not started or started == '' then write(id, 'started_at', now) end
move(id, 'running')
if said and said ~= '' then
  -- An earlier attempt sent text; this attempt sends its own from the beginning.
  write(id, 'said', '')
  emit(id, 'restart', cjson.encode({attempt = tonumber((read(id, 'attempts')))}))
end
due(id, sooner(now + lease, deadline))
return 1
