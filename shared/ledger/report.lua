-- ARGV: id, fence, event (progress, token or thinking), data (JSON), a text's number in its run.
-- Returns whether it was written.
local id, event, data = ARGV[1], ARGV[3], ARGV[4]
local state, fence, parent, part, parts, kind =
  read(id, 'state', 'fence', 'parent_id', 'part', 'parts', 'kind')
if state ~= 'running' or fence ~= ARGV[2] then return 0 end

-- The progress of a child that is one of its parent's equal parts is the parent's too.
local function sum()
  local one = cjson.decode(data)
  one.completed = one.completed + (tonumber(one.total) or 0) * part
  one.message = kind .. ': ' .. one.message
  if one.total ~= cjson.null then one.total = one.total * parts end
  return cjson.encode(one)
end

if event ~= 'progress' then
  -- The reply to this very piece was lost on its way, and it is sent again.
  local run, last = string.match(read(id, 'said') or '', '^(%d+):(%d+)$')
  if run == fence and tonumber(last) >= tonumber(ARGV[5]) then return 1 end
  write(id, 'said', fence .. ':' .. ARGV[5])
end
emit(id, event, data)
if event == 'progress' then
  write(id, 'progress', data)
  end_outage_after(id, data)
  count_work(id)
  if parts and read(parent, 'awaits') == id then
    local progress = sum()
    write(parent, 'progress', progress)
    emit(parent, 'progress', progress)
  end
end
return 1
