-- ARGV: id, fence, event (progress or token), data (JSON). Returns whether it was written.
local id, event, data = ARGV[1], ARGV[3], ARGV[4]
local state, fence = read(id, 'state', 'fence')
if state ~= 'running' or fence ~= ARGV[2] then return 0 end
if event == 'progress' then write(id, 'progress', data) end
emit(id, event, data)
return 1
