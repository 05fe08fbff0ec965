-- ARGV: id, fence, state, result (JSON or ''), error (JSON or ''). Returns whether the end counts.
local id, to = ARGV[1], ARGV[3]
local state, fence = read(id, 'state', 'fence')
if fence ~= ARGV[2] then return 0 end
-- The reply to this very end was lost on its way, and it is asked again.
if state == to then return 1 end
if state ~= 'running' then return 0 end
finish(id, to, ARGV[4], ARGV[5])
return 1
