-- Fails a queued job that nobody will ever claim.
-- ARGV: id, fence, error (JSON). Returns whether the end counts.
local id = ARGV[1]
local state, fence = read(id, 'state', 'fence')
if state ~= 'queued' or fence ~= ARGV[2] then return 0 end
finish(id, 'failed', '', ARGV[3])
return 1
