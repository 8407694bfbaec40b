-- Results: kept until their time or their receiver comes; the first one written for an id stays (lifecycle/results.py).
--
--   kr, kv  what is kept, by number: {id, queue, until, stream, first, n, code, text}, and its value
--   ri      id to number            pc:<pack>  the results of a pack's calls, by the first that each covers
function mh.kept(k)
  local raw = call('HGET', P .. ':kr', k)
  if not raw then return end
  return unp(raw), call('HGET', P .. ':kv', k) or nil
end

local function is_acked(k, rec)
  return rec[4] == '' or not call('ZSCORE', P .. ':se:' .. rec[4], k)
end

local function unindex(k, rec)
  if rec[6] > 0 then
    call('ZREM', P .. ':pc:' .. rec[1], k)
  elseif call('HGET', P .. ':ri', rec[1]) == k then
    call('HDEL', P .. ':ri', rec[1])
  end
end

local function delete(k)
  call('HDEL', P .. ':kr', k)
  call('HDEL', P .. ':kv', k)
  mh.never('r:' .. k)
end

-- Its time is over, or it was received.
function mh.drop_result(k)
  local rec = mh.kept(k)
  if not rec then return end
  unindex(k, rec)
  if is_acked(k, rec) then delete(k) end
end

-- A stream will not send it again.
function mh.acked(k)
  local rec = mh.kept(k)
  if rec and rec[3] <= now then
    unindex(k, rec)
    delete(k)
  end
end

local function outcome(s, rid, id, name, value, first, n)
  mh.reply(s, '\151' .. pack(70, rid, id, name) .. (value and bin(value) or '\192') .. pack(first or 0, n or 0))
end

local function hand_over(s, rid, k, rec, value, is_forgotten)
  outcome(s, rid, rec[1], rec[2], value, rec[5], rec[6])
  if rec[6] > 1 or not is_acked(k, rec) then return end  -- others of its calls, or its stream, are still to be served
  if is_forgotten or rec[3] == 0 then mh.drop_result(k) end
end

local function pack_of(id)
  local pack_id, part = string.match(id, '^(.*)%.(%d+)$')
  if pack_id and #part <= 9 then return pack_id, tonumber(part) end
end
mh.pack_of = pack_of

local function find(id)
  local k = call('HGET', P .. ':ri', id)
  if k then return k end
  local pack_id, part = pack_of(id)
  if not pack_id then return end
  k = call('ZREVRANGEBYSCORE', P .. ':pc:' .. pack_id, part, '-inf', 'LIMIT', 0, 1)[1]
  local rec = k and mh.kept(k)
  return rec and part < rec[5] + rec[6] and k or nil
end

local function queue_of(id)
  local q = mh.find_call(id)
  if q then return q.name end
  local pack_id, part = pack_of(id)
  local n
  if pack_id then q, n = mh.find_call(pack_id) end
  if q and part < max(1, mh.entry(q, n)[11]) then return q.name end
end

-- Result: {13, rid, id, wait_s, forget}
mh.on[13] = function(s, r)
  local rid, id, wait_s = r[2], r[3], r[4]
  local k = find(id)
  if k then
    local rec, value = mh.kept(k)
    return hand_over(s, rid, k, rec, value, r[5])
  end
  local name = queue_of(id)
  if not name then
    local raw = call('HGET', P .. ':buried', id) or call('HGET', P .. ':buried', pack_of(id) or '')
    if raw then
      local why = unp(raw)
      return mh.fail(s, rid, why[1], 'message ' .. id .. ' became a dead letter: ' .. why[2])
    end
    return mh.fail(s, rid, 'unknown_id', "no result and no unfinished call with id '" .. id .. "' is here (any more)")
  end
  if wait_s == 0 then return outcome(s, rid, id, name) end
  mh.park(s, {'R', id, rid, '', r[5]}, wait_s)
end

function mh.end_result_wait(s, rec)
  mh.unpark(s, rec)
  outcome(s, rec[3], rec[2], queue_of(rec[2]) or '')
end

local function each_waiting(id, first, n, each)
  if G.results_waited == 0 then return end
  for part = first, first + max(1, n) - 1 do
    local name = n > 0 and id .. '.' .. fmt('%d', part) or id
    for _, member in ipairs(call('ZRANGE', P .. ':rw:' .. name, 0, -1)) do
      local s, key = mh.who(member)
      local rec = s and mh.parked(s, key)
      if rec then
        mh.unpark(s, rec)
        each(s, rec)
      end
    end
  end
end

-- Keep a result, hand it to those who wait and to its stream t; a second one for the same id changes nothing.
-- first, n: which calls of a pack it covers; n 0 where the message is none.
function mh.store_result(q, e, value, t, first, n)
  local id = e[1]
  if n == 0 and call('HEXISTS', P .. ':ri', id) == 1 then return end
  local until_ = e[7] > 0 and now + e[7] or 0
  local k = fmt('%d', mh.next('token'))
  local rec = {id, q.name, until_, t and t.name or '', first, n, '', ''}
  if t or until_ > 0 or e[10] == '' then
    call('HSET', P .. ':kr', k, pack(rec))
    call('HSET', P .. ':kv', k, value)
    if n > 0 then call('ZADD', P .. ':pc:' .. id, first, k) else call('HSET', P .. ':ri', id, k) end
    if until_ > 0 then mh.at(until_, 'r:' .. k) end
  end
  if t then mh.append(t, k) end
  each_waiting(id, first, n, function(s, waiting) hand_over(s, waiting[3], k, rec, value, waiting[5]) end)
end

-- A call ended without a result: its stream and those who wait for it hear why.
function mh.end_without(q, e, code, text, t, first, n)
  each_waiting(e[1], first, n, function(s, waiting) mh.fail(s, waiting[3], code, text) end)
  if t then
    local k = fmt('%d', mh.next('token'))
    call('HSET', P .. ':kr', k, pack({e[1], q.name, 0, t.name, first, n, code, text}))
    mh.append(t, k)
  end
end
