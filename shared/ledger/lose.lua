-- ARGV: id, fence. The job's process is known to be dead. Returns whether the job was still its own.
local state, fence = read(ARGV[1], 'state', 'fence')
if state ~= 'running' or fence ~= ARGV[2] then return 0 end
lose(ARGV[1])
return 1
