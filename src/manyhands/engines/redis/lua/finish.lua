-- Where a message goes: back to the head, among the delayed, or out: done, dropped, dead. Each is one step with all that
-- follows from it.

-- Return a message whose lease has ended without an ack; its counts are taken back already (mh.release).
-- Not for begun packs, see packs.lua. how: consumer, outcome (for the history: it is charged; '' charges nothing), reason,
-- is_suspect, delay_s, result (the attempt's error, should it be the last).
function mh.give_back_alone(q, rec, how)
  local n = rec[2]
  local e = mh.entry(q, n)
  local deliveries = rec[5]
  local outcome = how.outcome or ''
  if outcome ~= '' then
    mh.add_history(q, n, {deliveries, how.consumer, rec[4], now, outcome, how.reason or ''})
    mh.change(q, 'redelivered', 1)
    if deliveries >= e[4] then
      local why = fmt('%d of %d deliveries used up; the last one: %s', deliveries, e[4], outcome)
      e[8] = deliveries
      return mh.bury(q, n, e, (how.reason or '') ~= '' and why .. ' (' .. how.reason .. ')' or why,
        outcome == 'lost' and 'worker_crashed' or 'task', how.result)
    end
  else
    deliveries = deliveries - 1
  end
  e[8], e[9] = deliveries, how.is_suspect and true or false
  if G.stops > 0 and e[2] > 0 and call('SISMEMBER', P .. ':stopping', e[1]) == 1 then
    mh.drop(q, n, e, 'cancelled', 'task_cancelled')
    return mh.wake(q)
  end
  if e[6] > 0 and e[6] <= now then
    mh.drop(q, n, e, 'dropped: it expired while it was with a consumer that did not finish it')
    return mh.wake(q)
  end
  mh.note_entry(q, n, e)
  local due_at = (how.delay_s or 0) > 0 and now + how.delay_s or 0
  if rec[8] then due_at = max(due_at, rec[8]) end  -- it was leased to be moved, before its time
  if due_at > now then
    mh.push_delayed(q, n, due_at)
  else
    mh.push_head(q, n, e[9])
  end
  mh.wake(q)
end

function mh.add_history(q, n, attempt)
  local raw = call('HGET', q.key .. ':m', n .. 'h')
  local history = raw and unp(raw) or {}
  history[#history + 1] = attempt
  call('HSET', q.key .. ':m', n .. 'h', pack(history))
end

function mh.less_unfinished(q, n)
  q.unfinished, q.is_changed = max(0, q.unfinished - n), true
  if q.unfinished == 0 then mh.wake(q) end
end

-- An acked message is gone, its result (if any) kept in the same step.
function mh.finish(q, rec, result)
  local n = rec[2]
  mh.change(q, 'done', 1)
  local e
  if rec[6] or result then e = mh.entry(q, n) end
  mh.forget_entry(q, n, e)
  if not e then return end
  local id, kind = e[1], e[2]
  if e[5] then mh.remember(id) end
  if e[6] > 0 then mh.never('x:' .. n .. ':' .. q.name) end
  local t = mh.unknow(q, n, e)
  if result then
    mh.store_result(q, e, result, t, 0, 0)
  elseif kind > 0 then
    mh.end_without(q, e, 'unknown_id', 'message ' .. id .. ' was finished without a result', t, 0, 0)
  end
end

-- A message is at another engine now: gone from here, and its id may be put here again.
function mh.leave(q, rec, reason)
  local n = rec[2]
  mh.less_unfinished(q, 1)
  local e = rec[6] and mh.entry(q, n)
  mh.forget_entry(q, n, e)
  if not e then return end
  if e[5] then call('HDEL', P .. ':known', e[1]) end
  if e[6] > 0 then mh.never('x:' .. n .. ':' .. q.name) end
  if e[2] > 0 then
    local text = reason ~= '' and reason or 'message ' .. e[1] .. ' was moved to another engine'
    mh.end_without(q, e, 'task_moved', text, mh.unknow(q, n, e), 0, 0)
  end
end

-- A message with a caller-given id is complete: further puts of it are dropped for dedupe_s.
function mh.remember(id)
  call('HSET', P .. ':known', id, now + dedupe_s)
  mh.at(now + dedupe_s, 'k:' .. id)
end

-- A message becomes a dead letter, kept with its history. code: what those who wait for its result hear, unless result has
-- the last attempt's error, or is_heard says that they were told otherwise.
function mh.bury(q, n, e, reason, code, result, is_heard)
  local calls = mh.calls_in(e)
  mh.note_entry(q, n, e)
  call('HSET', q.key .. ':m', n .. 'r', reason)
  call('ZADD', q.key .. ':x', now, n)
  mh.change(q, 'died', calls)
  mh.less_unfinished(q, calls)
  if e[6] > 0 then mh.never('x:' .. n .. ':' .. q.name) end
  local t = mh.unknow(q, n, e)
  if e[2] > 0 then call('HSET', P .. ':buried', e[1], pack({code, reason})) end
  calls = calls > 1 and calls or 0
  if result then
    mh.store_result(q, e, result, t, 0, calls)
  elseif e[2] > 0 and not is_heard then
    mh.end_without(q, e, code, 'message ' .. e[1] .. ' became a dead letter: ' .. reason, t, 0, calls)
  end
end

-- Forget a message that was purged or has expired; the caller has taken it out of the order. e: what was noted of it, if
-- anything was.
function mh.drop(q, n, e, why, code)
  mh.less_unfinished(q, e and mh.calls_in(e) or 1)
  mh.forget_entry(q, n, e)
  if not e then return end
  if e[5] then call('HDEL', P .. ':known', e[1]) end
  if e[6] > 0 then mh.never('x:' .. n .. ':' .. q.name) end
  if e[2] > 0 then
    local calls = mh.calls_in(e)
    mh.end_without(q, e, code or 'unknown_id', 'the call was ' .. why, mh.unknow(q, n, e), 0, calls > 1 and calls or 0)
  end
end

-- Drop a message whose time is over, unless somebody works on it or it ended before.
function mh.expire(q, n)
  if call('HEXISTS', q.key .. ':m', n) == 0 then return end
  local e = mh.entry(q, n)
  if mh.take_out(q, n, e) then
    mh.drop(q, n, e, 'dropped: it expired before anybody took it')
    mh.wake(q)
  end
end

-- Take out everything that is ready or delayed; how many.
function mh.clear(q, why)
  local dropped = 0
  for _, need in ipairs(q.parked > 0 and call('HKEYS', q.key .. ':nd') or {}) do
    for _, n in ipairs(call('ZRANGE', q.key .. ':z:' .. need, 0, -1)) do
      local e = mh.entry(q, n)
      mh.unpark_message(q, n, e)
      mh.drop(q, n, e, why)
      dropped = dropped + 1
    end
  end
  for _, place in ipairs({'r', 'd'}) do
    while true do
      local popped = call('ZPOPMIN', q.key .. ':' .. place, 500)
      if #popped == 0 then break end
      local fields, gone = {}, {}
      for i = 1, #popped, 2 do
        local n = popped[i]
        if sub(n, -1) == '!' then n = sub(n, 1, -2) end
        gone[#gone + 1], fields[#fields + 1] = n, n .. 'e'
      end
      local noted = call('HMGET', q.key .. ':m', unpack(fields))
      for i, n in ipairs(gone) do mh.drop(q, n, noted[i] and unp(noted[i]), why) end
      dropped = dropped + #gone
    end
  end
  mh.wake(q)
  return dropped
end
