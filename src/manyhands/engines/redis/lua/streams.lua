-- Streams: where the ends of calls go, in order, until who awaits them has acknowledged them (lifecycle/streams.py).
--
--   st:<stream>  {owner, is_lost, wsid, wkey}; the last two say who waits in Collect
--   sc:<stream>  its unfinished calls, "number:queue"      se:<stream>  what has ended and is not acknowledged, by number
--   calls        id to "number:queue" of every unfinished call or pack
local MOST, MOST_BYTES = 4096, 4 * 1024 * 1024
local T, collected
mh.begins[#mh.begins + 1] = function() T, collected = {}, {} end

local function save(t)
  call('HSET', t.key, 'owner', t.owner, 'is_lost', t.is_lost and 1 or 0, 'wsid', t.wsid or '', 'wkey', t.wkey or '')
end

function mh.stream(name)
  local t = T[name]
  if t == nil then
    local key = P .. ':st:' .. name
    local v = call('HMGET', key, 'owner', 'is_lost', 'wsid', 'wkey')
    t = v[1] and {name = name, key = key, owner = v[1], is_lost = v[2] == '1', wsid = v[3], wkey = v[4]} or false
    T[name] = t
  end
  return t
end

local function make(name, s)
  local t = {name = name, key = P .. ':st:' .. name, owner = s and s.id or '', is_lost = not s, wsid = '', wkey = ''}
  T[name] = t
  save(t)
  if s then call('SADD', s.key .. ':st', name) end
  return t
end

-- List an unfinished call, so that it can be awaited and cancelled by its id. s: who puts it.
function mh.know(q, n, e, s)
  if e[2] == 0 then return end
  call('HSET', P .. ':calls', e[1], n .. ':' .. q.name)
  if e[10] == '' then return end
  if not mh.stream(e[10]) then make(e[10], s) end
  call('SADD', P .. ':sc:' .. e[10], n .. ':' .. q.name)
end

-- A call is not unfinished any more; the stream that awaits its end.
function mh.unknow(q, n, e)
  if e[2] == 0 then return end
  if call('HGET', P .. ':calls', e[1]) == n .. ':' .. q.name then call('HDEL', P .. ':calls', e[1]) end
  if G.stops > 0 then call('SREM', P .. ':stopping', e[1]) end
  local t = e[10] ~= '' and mh.stream(e[10])
  if not t then return end
  call('SREM', P .. ':sc:' .. t.name, n .. ':' .. q.name)
  if t.is_lost then
    if call('SCARD', P .. ':sc:' .. t.name) == 0 then mh.drop_ended(t) end
    return
  end
  return t
end

-- Where the unfinished call with this id is: queue, number.
function mh.find_call(id)
  local where = call('HGET', P .. ':calls', id)
  if not where then return end
  local n, name = string.match(where, '^(%d+):(.*)$')
  return mh.queue(name), n
end

function mh.awaiting(e)
  local t = e[10] ~= '' and mh.stream(e[10])
  return t and not t.is_lost and t or nil
end

function mh.append(t, k)
  call('ZADD', P .. ':se:' .. t.name, k, k)
  if t.wsid ~= '' then collected[t] = true end
end

local function acknowledge(t, ack)
  local numbers = call('ZRANGEBYSCORE', P .. ':se:' .. t.name, '-inf', fmt('%.0f', ack))
  for _, k in ipairs(numbers) do
    call('ZREM', P .. ':se:' .. t.name, k)
    mh.acked(k)
  end
end

-- Nobody will collect this stream: forget it, but for what is kept by id.
function mh.drop_ended(t)
  t.is_lost = true
  save(t)
  acknowledge(t, 2 ^ 53)
  if call('SCARD', P .. ':sc:' .. t.name) == 0 and t.wsid == '' then
    call('DEL', t.key, P .. ':sc:' .. t.name, P .. ':se:' .. t.name)
    T[t.name] = false
  end
end

local function reply(t, s, rid, ack)
  local out, bytes, number = {}, 0, ack
  for _, k in ipairs(call('ZRANGE', P .. ':se:' .. t.name, 0, MOST - 1)) do
    local rec, value = mh.kept(k)
    bytes = bytes + (value and #value or 0)
    if bytes > MOST_BYTES and #out > 0 then break end
    out[#out + 1] = '\150' .. pack(rec[1]) .. (value and bin(value) or '\192') .. pack(rec[5], max(1, rec[6]), rec[7], rec[8])
    number = tonumber(k)
  end
  mh.reply(s, '\148' .. pack(77, rid, number) .. arr(#out) .. table.concat(out))
end

-- Collect: {32, rid, stream, ack, wait_s}
mh.on[32] = function(s, r)
  local rid, name, ack, wait_s = r[2], r[3], r[4], r[5]
  local t = mh.stream(name) or make(name, s)
  if t.owner ~= s.id then
    if t.owner ~= '' then call('SREM', P .. ':s:' .. t.owner .. ':st', name) end
    t.owner = s.id
    call('SADD', s.key .. ':st', name)
  end
  t.is_lost = false
  local last = call('ZRANGE', P .. ':se:' .. name, -1, -1)[1]
  local first = call('ZRANGE', P .. ':se:' .. name, 0, 0)[1]
  if first and tonumber(first) <= ack and ack <= tonumber(last) then acknowledge(t, ack) end
  if t.wsid ~= '' then
    local before = mh.session(t.wsid)
    local rec = before and mh.parked(before, t.wkey)
    if rec then mh.answer_collect(before, rec) end
  end
  if wait_s == 0 or call('ZCARD', P .. ':se:' .. name) > 0 then
    save(t)
    return reply(t, s, rid, ack)
  end
  local rec = {'C', name, rid, '', ack}
  if not mh.park(s, rec, wait_s) then return end
  t.wsid, t.wkey = s.id, rec[4]
  save(t)
end

function mh.withdraw_collect(s, rec)
  local t = mh.stream(rec[2])
  if t and t.wsid == s.id and t.wkey == rec[4] then
    t.wsid, t.wkey = '', ''
    save(t)
  end
end

function mh.answer_collect(s, rec)
  mh.unpark(s, rec)
  reply(mh.stream(rec[2]), s, rec[3], rec[5])
end

function mh.serve_streams()
  local t = next(collected)
  while t do
    collected[t] = nil
    local s = t.wsid ~= '' and mh.session(t.wsid)
    local rec = s and mh.parked(s, t.wkey)
    if rec and mh.is_alive(s.client) and call('ZCARD', P .. ':se:' .. t.name) > 0 then
      mh.heard(s)
      mh.answer_collect(s, rec)
    end
    t = next(collected)
  end
end

-- A session ended or its connection did: who awaited its calls may be gone.
function mh.watch_streams(s, is_over)
  for _, name in ipairs(call('SMEMBERS', s.key .. ':st')) do
    local t = mh.stream(name)
    if t then
      if is_over then mh.drop_ended(t) end
      if mh.stream(name) then mh.at(now + orphan_s, 'o:' .. name) end
    end
  end
end

-- Drop what is not begun of a stream whose owner is not back.
function mh.orphan(name)
  local t = mh.stream(name)
  if not t then return end
  local owner = t.owner ~= '' and mh.session(t.owner)
  if owner and owner.connected == 1 then return end
  for _, member in ipairs(call('SMEMBERS', P .. ':sc:' .. name)) do
    local n, queue = string.match(member, '^(%d+):(.*)$')
    local q = mh.queue(queue)
    local e = mh.entry(q, n)
    if e[7] == 0 and mh.take_out(q, n, e) then
      mh.drop(q, n, e, fmt('dropped: nobody awaited it for %.0f s', orphan_s))
    end
  end
  if not owner and mh.stream(name) then mh.drop_ended(t) end
end

-- Progress: {38, token, part, done, total, note}
mh.on[38] = function(s, r)
  local raw = call('HGET', s.key .. ':t', fmt('%d', r[2]))
  if not raw then return end
  local rec = unp(raw)
  local e = mh.entry(mh.queue(rec[1]), rec[2])
  local t = e[10] ~= '' and mh.stream(e[10])
  local owner = t and t.owner ~= '' and mh.session(t.owner)
  if not owner or owner.connected == 0 then return end
  local id = e[11] > 1 and e[1] .. '.' .. fmt('%d', r[3]) or e[1]
  mh.reply(owner, '\149' .. pack(93, id, r[4], r[5], r[6]))
end
