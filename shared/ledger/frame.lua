-- The end of the script. ARGV: operation, what the slot can take next (JSON) or '', the operation's
-- arguments. Returns {the operation's answer, what the slot got: {records, wait} or false}.

-- A Redis whose memory is full refuses what adds to it, but it asks for memory only before a script's first
-- write, and this write frees some. Only accepting and reviving jobs are refused; all else makes room.
local refused_when_full = {accept = true, accept_batch = true, revive = true, snapshot = true, children = true}
if not refused_when_full[ARGV[1]] then redis.call('DEL', key('nothing')) end

local answer = operations[ARGV[1]](unpack(ARGV, 3))
local claimed = false
if ARGV[2] ~= '' then claimed = claim(cjson.decode(ARGV[2])) end
balance_touched()
flush()
return {answer, claimed}
