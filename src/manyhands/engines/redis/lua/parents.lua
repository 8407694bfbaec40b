-- Parents, cancelling and parking (lifecycle/parents.py, cancelling.py, parking.py).

-- Vouch: {35, sessions}
mh.on[35] = function(_, r)
  for _, sid in ipairs(r[2]) do
    local child = mh.session(sid)
    if child and child.connected == 1 then mh.heard(child) end
  end
end

-- Reclaim: {36, rid, session, queue, begun}, each {token, n}
mh.on[36] = function(s, r)
  local child, q = mh.session(r[3]), mh.known(r[4])
  if child and q then
    call('HDEL', q.key .. ':rc', child.id)
    if call('SREM', child.key .. ':rq', q.name) == 1 then child.recalls, child.is_changed = child.recalls - 1, true end
    local n = 0
    for _, begun in ipairs(r[5]) do
      local token = fmt('%d', begun[1])
      local raw = call('HGET', child.key .. ':t', token)
      local rec = raw and unp(raw)
      if rec and rec[1] == q.name then
        if begun[2] <= 0 then
          call('HDEL', child.key .. ':t', token)
          mh.release(q, rec, child.id)
          mh.give_back(q, rec, {is_suspect = rec[7]})
          n = n + 1
        else
          if not rec[3] then  -- the parent knows better
            rec[3] = true
            call('HSET', child.key .. ':t', token, pack(rec))
            mh.hold_unbegun(q, child.id, -1)
          end
          if rec[6] and mh.keep_first(q, rec, begun[2]) then n = n + 1 end
        end
      end
    end
    mh.arm(q, n == 0)
    mh.wake(q)
  end
  mh.done(s, r[2])
end

-- The lease of the call that ran when a child died ends; everything else that the child held was not running.
function mh.end_running(dead, r, result, reason)
  local token = fmt('%d', r[5])
  local raw = call('HGET', dead.key .. ':t', token)
  if raw then
    call('HDEL', dead.key .. ':t', token)
    local rec = unp(raw)
    local q = mh.queue(rec[1])
    mh.release(q, rec, dead.id)
    mh.end_one(dead, q, rec, r[6], r[7], result, reason)
  end
  mh.end_leases(dead, function(q, rec) mh.give_back(q, rec, {is_suspect = rec[7]}) end)
end

-- Keep a message, charged nothing, until somebody offers what it needs. It is out of its lease already.
function mh.park_message(q, rec, e, need)
  local n = rec[2]
  e[8], e[13] = rec[5] - 1, need
  mh.note_entry(q, n, e)
  call('ZADD', q.key .. ':z:' .. need, n, n)
  call('HINCRBY', q.key .. ':nd', need, 1)
  mh.change(q, 'parked', 1)
  mh.wake(q)
end

function mh.unpark_message(q, n, e)
  call('ZREM', q.key .. ':z:' .. e[13], n)
  if call('HINCRBY', q.key .. ':nd', e[13], -1) == 0 then call('HDEL', q.key .. ':nd', e[13]) end
  mh.change(q, 'parked', -1)
  e[13] = ''
  mh.note_entry(q, n, e)
end

-- Out of the order, wherever it waits; false: somebody has it.
function mh.take_out(q, n, e)
  if e[13] ~= '' then
    mh.unpark_message(q, n, e)
    return true
  end
  return call('ZREM', q.key .. ':r', n, n .. '!') + call('ZREM', q.key .. ':d', n) > 0
end

local function needs_of(q, s)
  local out = {}
  if q.parked > 0 and s.offers > 0 then
    for _, need in ipairs(call('HKEYS', q.key .. ':nd')) do
      if call('SISMEMBER', s.key .. ':of', need) == 1 then out[#out + 1] = need end
    end
  end
  return out
end

function mh.is_for(q, s) return #needs_of(q, s) > 0 end

-- Parked messages that this session can run, oldest first for each need; a suspect comes alone.
function mh.take_parked(q, s, max_n)
  local taken = {}
  for _, need in ipairs(needs_of(q, s)) do
    for _, n in ipairs(call('ZRANGE', q.key .. ':z:' .. need, 0, max_n - #taken - 1)) do
      local e = mh.entry(q, n)
      if e[9] and #taken > 0 then return taken, false end
      mh.unpark_message(q, n, e)
      taken[#taken + 1] = n
      if e[9] then return taken, true end
      if #taken == max_n then return taken, false end
    end
  end
  return taken, false
end

-- Offer: {37, needs}
mh.on[37] = function(s, r)
  call('DEL', s.key .. ':of')
  for _, need in ipairs(r[2]) do call('SADD', s.key .. ':of', need) end
  s.offers, s.is_changed = #r[2], true
  for _, name in ipairs(call('SMEMBERS', P .. ':queues')) do
    local q = mh.queue(name)
    if q.parked > 0 then mh.wake(q) end
  end
end

-- Who parks what it offered to run has shown that it cannot.
function mh.withdraw_offer(s, need)
  if s.offers > 0 then call('SREM', s.key .. ':of', need) end
end

-- Who has a call that is leased: session, token.
local function holder(q, n)
  for _, sid in ipairs(call('SMEMBERS', P .. ':sessions')) do
    local s = mh.session(sid)
    local all = s and call('HGETALL', s.key .. ':t') or {}
    for i = 2, #all, 2 do
      local rec = unp(all[i])
      if rec[1] == q.name and rec[2] == n then return s, tonumber(all[i - 1]) end
    end
  end
end

local function stop(q, n, id, part)
  G.stops = G.stops + 1
  call('SADD', P .. ':stopping', id)
  local s, token = holder(q, n)
  if not s then return end
  local parent = s.parent ~= '' and mh.session(s.parent)
  local asked = parent and parent.connected == 1 and parent or s
  mh.reply(asked, '\148' .. pack(92, s.id, token, part))
end

-- Cancel: {34, rid, queue, ids, is_running_too}
mh.on[34] = function(s, r)
  local q = mh.queue(r[3])
  local done, packs, order = {}, {}, {}
  for _, id in ipairs(r[4]) do
    local there, n = mh.find_call(id)
    if there and there.name == q.name then
      local e = mh.entry(q, n)
      if mh.take_out(q, n, e) then
        mh.drop(q, n, e, 'cancelled', 'task_cancelled')
        done[#done + 1] = id
      elseif r[5] then
        stop(q, n, id, -1)
      end
    else
      local pack_id, part = mh.pack_of(id)
      if pack_id then there, n = mh.find_call(pack_id) else there = nil end
      if there and there.name == q.name then
        local e = mh.entry(q, n)
        local first, last = mh.left(e)
        local known = packs[pack_id]
        if not known and part < e[11] and mh.take_out(q, n, e) then
          known = {n = n, e = e, gone = {}, count = 0}
          packs[pack_id] = known
          order[#order + 1] = known
        end
        if known and part < e[11] then
          if not known.gone[part] then known.gone[part], known.count = true, known.count + 1 end
          done[#done + 1] = id
        elseif not known and r[5] and part >= first and part < last then
          stop(q, n, id, part)
        end
      end
    end
  end
  for _, pack in ipairs(order) do
    local e = pack.e
    if pack.count == e[11] then
      mh.drop(q, pack.n, e, 'cancelled', 'task_cancelled')
    else
      local t = mh.awaiting(e)
      local part = 0
      while part < e[11] do
        local from = part
        while part < e[11] and pack.gone[part] do part = part + 1 end
        if part > from then
          mh.end_without(q, e, 'task_cancelled', fmt('calls of message %s were cancelled', e[1]), t, from, part - from)
        end
        part = part + 1
      end
      mh.less_unfinished(q, pack.count)
      mh.cut_out(q, pack.n, e, pack.gone)
    end
  end
  mh.wake(q)
  mh.reply(s, '\147' .. pack(78, r[2], done))
end
