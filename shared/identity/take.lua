-- A token bucket, kept as the time at which it will be full again (the "generic cell rate algorithm").
-- KEYS[1]: the bucket. ARGV: tokens per second, tokens in a full bucket.
-- Returns the milliseconds until there is a token; 0 if there was one, which is taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local token = 1000 / ARGV[1]
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + token
local wait = full_at - now - token * ARGV[2]
-- Less than this is a rounding of ours.
if wait > 0.01 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return 0
