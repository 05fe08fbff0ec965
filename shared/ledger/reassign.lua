-- Lets the workers of another queue have a queued job.
-- ARGV: id, fence, queue. Returns whether it did.
local id, queue = ARGV[1], ARGV[3]
local state, fence, former = read(id, 'state', 'fence', 'queue')
if state ~= 'queued' or fence ~= ARGV[2] then return 0 end
redis.call('ZREM', key('ready', former), id)
step_out(id)
redis.call('SADD', key('queues'), queue)
write(id, 'queue', queue)
enqueue(id, now)
return 1
