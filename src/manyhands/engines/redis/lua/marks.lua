-- Recognising what was sent before: one watermark for each session and stream, {highest seq seen, holes: seq to true}.
-- The same rules as lifecycle/marks.py.
local MAX_GAP = 100000
local marks
mh.begins[#mh.begins + 1] = function() marks = {} end

function mh.mark(s, stream)
  local id = s.id .. '\0' .. stream
  local mark = marks[id]
  if not mark then
    local raw = call('HGET', s.key .. ':k', stream)
    mark = {seq = 0, holes = {}, s = s, stream = stream}
    if raw then
      local all = unp(raw)
      mark.seq = all[1]
      for i = 2, #all do mark.holes[all[i]] = true end
    end
    marks[id] = mark
  end
  return mark
end

function mh.is_applied(mark, seq) return seq <= mark.seq and not mark.holes[seq] end

-- The sentence that refuses a seq which no session counting by ones can have reached, or nil.
function mh.beyond(mark, seq, floor_)
  if seq - max(mark.seq, floor_) > MAX_GAP then
    return fmt('seq %.0f is far beyond the last one seen (%.0f); count by ones from 1', seq, mark.seq)
  end
end

function mh.note(s, stream, seq, floor_, is_applied)
  if seq <= 0 then return end
  local mark = mh.mark(s, stream)
  mark.is_changed = true
  if seq > mark.seq then
    for hole = max(mark.seq + 1, floor_), seq - 1 do mark.holes[hole] = true end
    mark.seq = seq
  end
  mark.holes[seq] = not is_applied or nil
  if floor_ > 1 then
    for hole in pairs(mark.holes) do
      if hole < floor_ then mark.holes[hole] = nil end
    end
  end
end

function mh.save_marks()
  for _, mark in pairs(marks) do
    if mark.is_changed and mh.session(mark.s.id) == mark.s then
      local all = {mark.seq}
      for hole in pairs(mark.holes) do all[#all + 1] = hole end
      call('HSET', mark.s.key .. ':k', mark.stream, pack(all))
    end
  end
end
