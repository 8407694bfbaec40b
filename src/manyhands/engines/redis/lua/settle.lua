-- Ending deliveries, and the count of what is unfinished.
local ACK, NACK, REJECT, PARK, MOVED = 0, 1, 2, 4, 5

-- End a delivery of a message that is no pack, in any of the ways. It is out of its lease already.
function mh.settle_alone(s, q, rec, one, result)
  local kind = one[2]
  if kind == ACK then
    mh.finish(q, rec, result)
    if one[3] then mh.less_unfinished(q, 1) end
  elseif kind == NACK then
    mh.give_back_alone(q, rec,
      {consumer = s.name, outcome = 'nack', reason = one[5], delay_s = one[4], result = result})
  elseif kind == REJECT then
    local e = mh.entry(q, rec[2])
    e[8] = rec[5]
    mh.add_history(q, rec[2], {rec[5], s.name, rec[4], now, 'reject', one[5]})
    mh.bury(q, rec[2], e, one[5] ~= '' and one[5] or 'rejected', 'task', result)
  elseif kind == MOVED then
    mh.leave(q, rec, one[5])
  elseif kind == PARK then
    mh.withdraw_offer(s, one[5])
    mh.park_message(q, rec, mh.entry(q, rec[2]), one[5])
  else
    mh.give_back_alone(q, rec, {is_suspect = rec[7]})
  end
end

-- {7, rid, seq, floor, settlements}, each {token, kind, is_task_done, delay_s, reason, result, calls}; result is which body it is.
mh.on[7] = function(s, r, bodies)
  local rid, seq, floor_ = r[2], r[3], r[4]
  if seq > 0 then
    local mark = mh.mark(s, '')
    if mh.is_applied(mark, seq) then return mh.settled(s, rid, {}) end
    local text = mh.beyond(mark, seq, floor_)
    if text then return mh.fail(s, rid, 'usage', text) end
  end
  local settlements, lost = r[5], {}
  for _, one in ipairs(settlements) do
    if one[7] > 0 or one[2] == MOVED then
      local raw = call('HGET', s.key .. ':t', fmt('%d', one[1]))
      local rec = raw and unp(raw)
      local e = rec and (one[7] > 0 or rec[6]) and mh.entry(mh.queue(rec[1]), rec[2])
      if e then
        local first, last = mh.left(e)
        local text = one[7] > last - first and fmt('%d calls cannot be settled: %d are left', one[7], last - first)
          or one[2] == MOVED and e[11] > 1 and 'a message of several calls can only be taken apart by this engine'
        if text then
          mh.note(s, '', seq, floor_, false)
          return mh.fail(s, rid, 'usage', text)
        end
      end
    end
  end
  for _, one in ipairs(settlements) do
    local token = fmt('%d', one[1])
    local raw = call('HGET', s.key .. ':t', token)
    if not raw then
      lost[#lost + 1] = one[1]
    else
      call('HDEL', s.key .. ':t', token)
      local rec = unp(raw)
      local q = mh.queue(rec[1])
      mh.release(q, rec, s.id)
      if not rec[3] then mh.wake(q) end
      local e = rec[6] and mh.entry(q, rec[2])
      if e and e[11] > 1 then
        mh.settle_pack(s, q, rec, e, one, one[6] and bodies[one[6]])
      else
        mh.settle_alone(s, q, rec, one, one[6] and bodies[one[6]])
      end
    end
  end
  -- One that changed nothing is judged anew when it is sent again: its sender must not take the answer for a success.
  mh.note(s, '', seq, floor_, #lost == 0 or #lost < #settlements)
  mh.settled(s, rid, lost)
end

-- {_, seq, floor}: a settle or task_done that its client refused.
mh.on.refuse_seq = function(s, r) mh.note(s, '', r[2], r[3], false) end

-- TaskDone: {9, rid, seq, floor, queue, n}
mh.on[9] = function(s, r)
  local rid, seq, floor_ = r[2], r[3], r[4]
  if seq > 0 then
    local mark = mh.mark(s, '')
    if mh.is_applied(mark, seq) then return mh.done(s, rid) end
    local text = mh.beyond(mark, seq, floor_)
    if text then return mh.fail(s, rid, 'usage', text) end
  end
  local q = mh.queue(r[5])
  if r[6] > q.unfinished then
    mh.note(s, '', seq, floor_, false)
    return mh.fail(s, rid, 'too_many_task_done', 'task_done() called too many times')
  end
  mh.less_unfinished(q, r[6])
  mh.note(s, '', seq, floor_, true)
  mh.done(s, rid)
end

-- Join: {10, rid, queue, wait_s}
mh.on[10] = function(s, r)
  local q = mh.queue(r[3])
  if q.unfinished == 0 or r[4] == 0 then return mh.count(s, r[2], q.unfinished) end
  mh.park(s, {'J', q.name, r[2], ''}, r[4])
end

function mh.answer_join(s, rec)
  mh.unpark(s, rec)
  mh.count(s, rec[3], mh.queue(rec[2]).unfinished)
end

function mh.answer_joins(q)
  while q.joining > 0 do
    local s, rec = mh.first_of(q, 'j')
    if not s then return end
    mh.answer_join(s, rec)
  end
end
