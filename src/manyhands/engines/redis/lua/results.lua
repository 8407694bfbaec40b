-- Results by message id: kept until their time or their receiver comes; the first one written stays. "rv" has the values,
-- "rq" {queue, until}.
local function outcome(s, rid, id, name, value)
  mh.reply(s, '\149' .. pack(70, rid, id, name) .. (value and bin(value) or '\192'))
end

local function drop(id)
  call('HDEL', P .. ':rv', id)
  call('HDEL', P .. ':rq', id)
  mh.never('r:' .. id)
end
mh.drop_result = drop

local function hand_over(s, rid, id, name, until_, value, is_forgotten)
  outcome(s, rid, id, name, value)
  if is_forgotten or until_ == 0 then drop(id) end
end

-- Result: {13, rid, id, wait_s, forget}
mh.on[13] = function(s, r)
  local rid, id, wait_s = r[2], r[3], r[4]
  local value = call('HGET', P .. ':rv', id)
  if value then
    local kept = unp(call('HGET', P .. ':rq', id))
    return hand_over(s, rid, id, kept[1], kept[2], value, r[5])
  end
  local name = call('HGET', P .. ':calls', id)
  if not name then
    local reason = call('HGET', P .. ':buried', id)
    if reason then return mh.fail(s, rid, 'task', 'message ' .. id .. ' became a dead letter: ' .. reason) end
    return mh.fail(s, rid, 'unknown_id', "no result and no unfinished call with id '" .. id .. "' is here (any more)")
  end
  if wait_s == 0 then return outcome(s, rid, id, name) end
  mh.park(s, {'R', id, rid, '', r[5]}, wait_s)
end

function mh.end_result_wait(s, rec)
  mh.unpark(s, rec)
  outcome(s, rec[3], rec[2], call('HGET', P .. ':calls', rec[2]) or '')
end

local function each_waiting(id, each)
  for _, member in ipairs(call('ZRANGE', P .. ':rw:' .. id, 0, -1)) do
    local s, key = mh.who(member)
    local rec = s and mh.parked(s, key)
    if rec then
      mh.unpark(s, rec)
      each(s, rec)
    end
  end
end

-- Keep a result and hand it to those who wait; a second one for the same id changes nothing.
function mh.store_result(q, id, keep_s, value)
  if call('HSETNX', P .. ':rv', id, value) == 0 then return end
  local until_ = keep_s > 0 and now + keep_s or 0
  call('HSET', P .. ':rq', id, pack({q.name, until_}))
  if until_ > 0 then mh.at(until_, 'r:' .. id) end
  each_waiting(id, function(s, rec)
    hand_over(s, rec[3], id, q.name, until_, value, rec[5])
  end)
end

-- Those who wait for this result wait in vain.
function mh.refuse_results(id, code, text)
  each_waiting(id, function(s, rec) mh.fail(s, rec[3], code, text) end)
end
