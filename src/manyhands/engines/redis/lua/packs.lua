-- Packs: messages that several calls share, and how they part ways (lifecycle/packs.py). What ends a pack in the middle makes
-- a message of each call that has not ended; each carries the pack's body and seal.

-- How many calls a message is; a queue's counters count calls.
function mh.calls_in(e) return max(1, e[11]) end

-- The calls [first, end) that a lease still has; (0, 1) of a message that is no pack.
local function left(e)
  if e[11] < 2 then return 0, 1 end
  if e[15] == 0 then return 0, e[11] end
  return e[14], e[15]
end
mh.left = left

local function is_whole(e)
  if e[15] > 0 then return false end
  if G.stops == 0 then return true end
  for part = 0, e[11] - 1 do
    if call('SISMEMBER', P .. ':stopping', e[1] .. '.' .. fmt('%d', part)) == 1 then return false end
  end
  return true
end

-- The pack itself is over; its calls are the caller's. What they are made of.
local function over(q, rec, e)
  local got = call('HMGET', q.key .. ':m', rec[2], rec[2] .. 'h')
  mh.unknow(q, rec[2], e)
  if e[5] then mh.remember(e[1]) end
  if e[6] > 0 then mh.never('x:' .. rec[2] .. ':' .. q.name) end
  mh.forget_entry(q, rec[2])
  return got[1], got[2]
end

-- One call of a pack as a message that was just leased: its record and what is known of it.
local function part_of(q, rec, e, blob, history, part)
  local _, body = span(blob, 2)
  local _, seal = span(blob, body)
  local _, tail = span(blob, seal)
  local id = e[1] .. '.' .. fmt('%d', part)
  local n = fmt('%d', mh.next('n'))
  local options = arr(6) .. pack(false, e[6], e[7], e[10], 0, part)
  mh.share_body(q, rec[2], sub(blob, body, tail - 1))
  call('HSET', q.key .. ':m', n, '\193' .. pack(rec[2], '\152' .. pack(id), pack(e[2], e[3], 0, e[4]) .. options))
  if history then call('HSET', q.key .. ':m', n .. 'h', history) end
  local alone = {id, e[2], e[3], e[4], false, e[6], e[7], rec[5], false, e[10], 0, part, '', 0, 0, rec[2]}
  mh.note_entry(q, n, alone)
  mh.know(q, n, alone)
  if e[6] > 0 then mh.at(e[6], 'x:' .. n .. ':' .. q.name) end
  return {q.name, n, true, rec[4], rec[5], true, false}, alone
end

local function separate(q, rec, e, blob, history, from, to, how, but)
  for part = from, to - 1 do
    if part ~= but then mh.give_back_alone(q, part_of(q, rec, e, blob, history, part), how) end
  end
end

function mh.give_back(q, rec, how)
  local e = rec[6] and mh.entry(q, rec[2])
  if not e or e[11] < 2 then return mh.give_back_alone(q, rec, how) end
  local outcome = how.outcome or ''
  if outcome == '' and is_whole(e) then return mh.give_back_alone(q, rec, how) end
  local first, last = left(e)
  local blob, history = over(q, rec, e)
  if outcome ~= 'nack' and outcome ~= '' and e[4] > 1 then how = {is_suspect = how.is_suspect} end
  separate(q, rec, e, blob, history, first, last, how)
end

-- The first n calls that are left have ended.
local function cover(q, e, first, n, result)
  if n == 0 then return end
  mh.change(q, 'done', n)
  local t = mh.awaiting(e)
  if result then
    mh.store_result(q, e, result, t, first, n)
  else
    mh.end_without(q, e, 'unknown_id', fmt('calls %d to %d of message %s were finished without a result', first,
      first + n - 1, e[1]), t, first, n)
  end
end

-- End a lease on a pack: the first `calls` of what is left end as said, the others go back, charged nothing.
-- one: {token, kind, is_task_done, delay_s, reason, result, calls}
function mh.settle_pack(s, q, rec, e, one, result)
  local first, last = left(e)
  local kind, middle = one[2], one[7] > 0 and min(last, first + one[7]) or last
  local quiet = {is_suspect = rec[7]}
  if kind == 3 then return mh.give_back(q, rec, quiet) end
  if kind == 4 and is_whole(e) then return mh.park_message(q, rec, e, one[5]) end
  local reason = one[5] ~= '' and one[5] or 'rejected'
  if kind == 2 and middle - first == e[11] then
    mh.add_history(q, rec[2], {rec[5], s.name, rec[4], now, 'reject', one[5]})
    e[8] = rec[5]
    return mh.bury(q, rec[2], e, reason, 'task', result)
  end
  local t = mh.awaiting(e)
  local blob, history = over(q, rec, e)
  if kind == 0 then
    cover(q, e, first, middle - first, result)
    if one[3] then mh.less_unfinished(q, middle - first) end
  elseif kind == 1 then
    separate(q, rec, e, blob, history, first, middle,
      {consumer = s.name, outcome = 'nack', reason = one[5], delay_s = one[4]})
  elseif kind == 2 then
    if result and middle > first then mh.store_result(q, e, result, t, first, middle - first) end
    for part = first, middle - 1 do
      local alone, known = part_of(q, rec, e, blob, history, part)
      mh.add_history(q, alone[2], {rec[5], s.name, rec[4], now, 'reject', one[5]})
      mh.bury(q, alone[2], known, reason, 'task', nil, result and true)
    end
  else
    for part = first, last - 1 do
      local alone, known = part_of(q, rec, e, blob, history, part)
      mh.park_message(q, alone, known, one[5])
    end
    return
  end
  separate(q, rec, e, blob, history, middle, last, quiet)
end

-- A lease ended while one known call of it ran: that call ends as said (one) or is charged, its neighbours go back.
function mh.end_one(s, q, rec, part, one, result, reason)
  local e = mh.entry(q, rec[2])
  local lost = {consumer = s.name, outcome = 'lost', reason = reason, is_suspect = true}
  local function alone_ends(alone, known)
    if not one then return mh.give_back_alone(q, alone, lost) end
    mh.settle_alone(s, q, alone, one, result)
  end
  if e[11] < 2 then return alone_ends(rec) end
  local first, last = left(e)
  if part < first or part >= last then
    return mh.give_back(q, rec, part < 0 and lost or {})
  end
  local t = mh.awaiting(e)
  local blob, history = over(q, rec, e)
  if one and one[2] == 0 then
    cover(q, e, part, 1, result)
    if one[3] then mh.less_unfinished(q, 1) end
  elseif one and one[2] == 2 and result then
    mh.store_result(q, e, result, t, part, 1)
    local alone, known = part_of(q, rec, e, blob, history, part)
    mh.add_history(q, alone[2], {rec[5], s.name, rec[4], now, 'reject', one[5]})
    mh.bury(q, alone[2], known, one[5] ~= '' and one[5] or 'rejected', 'task', nil, true)
  else
    alone_ends(part_of(q, rec, e, blob, history, part))
  end
  separate(q, rec, e, blob, history, first, last, {is_suspect = rec[7]}, part)
end

-- Leave the first n calls of a leased pack to its lease and give the others back; whether there were any.
function mh.keep_first(q, rec, n)
  local e = mh.entry(q, rec[2])
  if e[11] < 2 then return false end
  local first, last = left(e)
  n = max(n, first)
  if n >= last then return false end
  e[14], e[15] = first, n
  mh.note_entry(q, rec[2], e)
  local got = call('HMGET', q.key .. ':m', rec[2], rec[2] .. 'h')
  separate(q, rec, e, got[1], got[2], n, last, {is_suspect = rec[7]})
  return true
end

-- Report: {33, rid, seq, floor, token, calls}, and the result as a body
mh.on[33] = function(s, r, bodies)
  local rid, seq, floor_, calls = r[2], r[3], r[4], r[6]
  if seq > 0 then
    local mark = mh.mark(s, '')
    if mh.is_applied(mark, seq) then return mh.done(s, rid) end
    local text = mh.beyond(mark, seq, floor_)
    if text then return mh.fail(s, rid, 'usage', text) end
  end
  local raw = call('HGET', s.key .. ':t', fmt('%d', r[5]))
  if not raw then
    mh.note(s, '', seq, floor_, false)
    return mh.fail(s, rid, 'lease_lost',
      'the calls reported on belong to another consumer now; their results were not stored')
  end
  local rec = unp(raw)
  local q = mh.queue(rec[1])
  local e = mh.entry(q, rec[2])
  local first, last = left(e)
  if e[11] < 2 or calls < 1 or calls > last - first then
    mh.note(s, '', seq, floor_, false)
    return mh.fail(s, rid, 'usage', fmt('%d calls of message %s cannot be reported: %d are left', calls, e[1], last - first))
  end
  e[14], e[15] = first + calls, last
  mh.note_entry(q, rec[2], e)
  cover(q, e, first, calls, bodies[1])
  mh.less_unfinished(q, calls)
  mh.note(s, '', seq, floor_, true)
  mh.done(s, rid)
end

-- Take apart a pack that waits, leaving these calls out. The caller has taken it out of the order.
function mh.cut_out(q, n, e, gone)
  local rec = {q.name, n, true, now, e[8] + 1, true, e[9]}
  local blob, history = over(q, rec, e)
  local _, due_at = mh.fresh(blob)
  for part = 0, e[11] - 1 do
    if not gone[part] then
      mh.give_back_alone(q, part_of(q, rec, e, blob, history, part), {is_suspect = e[9], delay_s = max(0, due_at - now)})
    end
  end
end
