-- Looking at queues, stopping them, and the care of dead letters.

-- ShutDown: {11, rid, queue, immediate}
mh.on[11] = function(s, r)
  local q = mh.queue(r[3])
  if q.is_shut == 0 then q.is_shut, q.is_changed, G.shut = 1, true, G.shut + 1 end
  if r[4] then mh.clear(q, 'dropped: its queue was shut down') end
  mh.wake(q)
  mh.done(s, r[2])
end

-- Size: {12, rid, queue}
mh.on[12] = function(s, r)
  mh.reply(s, '\147' .. pack(69, r[2]) .. mh.stats(mh.queue(r[3])))
end

local function session_stats(s)
  local leases, waiting = call('HLEN', s.key .. ':t'), 0
  if s.connected == 0 and leases == 0 then return end
  local all = call('HGETALL', s.key .. ':p')
  for i = 1, #all, 2 do
    if sub(all[i], -1) ~= 'b' and unp(all[i + 1])[1] == 'L' then waiting = waiting + 1 end
  end
  return arr(6) .. pack(s.id, s.name, s.connected == 1, s.attached, leases, waiting)
end

-- Stats: {20, rid, queues}. The sessions' ids are made public by the client.
mh.on[20] = function(s, r)
  local names, queues, sessions = r[3], {}, {}
  if #names == 0 then
    names = call('SMEMBERS', P .. ':queues')
    table.sort(names)
  end
  for _, name in ipairs(names) do
    local q = mh.known(name)
    if q then queues[#queues + 1] = mh.stats(q) end
  end
  for _, sid in ipairs(call('SMEMBERS', P .. ':sessions')) do
    local one = mh.session(sid)
    sessions[#sessions + 1] = one and session_stats(one)
  end
  mh.reply(s, arr(5) .. pack(72, r[2]) .. arr(#queues) .. table.concat(queues)
    .. arr(#sessions) .. table.concat(sessions) .. pack(now - G.opened))
end

-- Peek: {21, rid, queue, limit}
mh.on[21] = function(s, r)
  local q, limit = mh.known(r[3]), r[4]
  local found = {}
  if q and limit > 0 then
    for _, place in ipairs({'r', 'd'}) do
      for _, n in ipairs(call('ZRANGE', q.key .. ':' .. place, 0, limit - #found - 1)) do
        found[#found + 1] = mh.blob(q, call('HGET', q.key .. ':m', (string.gsub(n, '!', ''))))
      end
      if #found == limit then break end
    end
    for _, need in ipairs(q.parked > 0 and call('HKEYS', q.key .. ':nd') or {}) do
      for _, n in ipairs(#found < limit and call('ZRANGE', q.key .. ':z:' .. need, 0, limit - #found - 1) or {}) do
        found[#found + 1] = mh.blob(q, call('HGET', q.key .. ':m', n))
      end
    end
  end
  mh.reply(s, '\147' .. pack(73, r[2]) .. arr(#found) .. table.concat(found))
end

-- Purge: {22, rid, queue}
mh.on[22] = function(s, r)
  mh.count(s, r[2], mh.clear(mh.queue(r[3]), 'purged'))
end

-- The dead letters of a queue, those with one of these ids (all, if none is named): {died_at, n, q, entry}.
local function dead_of(q, ids, limit)
  local wanted
  for _, id in ipairs(ids) do
    wanted = wanted or {}
    wanted[id] = true
  end
  local found = {}
  local all = call('ZREVRANGE', q.key .. ':x', 0, wanted and -1 or limit - 1, 'WITHSCORES')
  for i = 1, #all, 2 do
    local e = mh.entry(q, all[i])
    if not wanted or wanted[e[1]] then found[#found + 1] = {tonumber(all[i + 1]), tonumber(all[i]), q, e, all[i]} end
  end
  return found
end

-- DeadList: {23, rid, queue, ids, limit}
mh.on[23] = function(s, r)
  local names, limit, found = {r[3]}, r[5], {}
  if r[3] == '' then names = call('SMEMBERS', P .. ':queues') end
  for _, name in ipairs(names) do
    local q = mh.known(name)
    for _, one in ipairs(q and limit > 0 and dead_of(q, r[4], limit) or {}) do found[#found + 1] = one end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    return a[2] > b[2]
  end)
  local letters = {}
  for i = 1, min(limit, #found) do
    local died_at, q, n = found[i][1], found[i][3], found[i][5]
    local got = call('HMGET', q.key .. ':m', n, n .. 'r', n .. 'h')
    letters[i] = '\149' .. pack(q.name) .. mh.blob(q, got[1]) .. pack(died_at, got[2]) .. (got[3] or arr(0))
  end
  mh.reply(s, '\147' .. pack(74, r[2]) .. arr(#letters) .. table.concat(letters))
end

-- Take dead letters out of their place: {entry, bytes}.
local function exhume(q, ids)
  local out = {}
  for _, one in ipairs(dead_of(q, ids, 0)) do
    local e, n = one[4], one[5]
    out[#out + 1] = {e, mh.blob(q, call('HGET', q.key .. ':m', n)), one[2]}
    call('ZREM', q.key .. ':x', n)
    call('HDEL', P .. ':buried', e[1])
    mh.forget_entry(q, n, e)
  end
  return out
end

-- DeadRetry: {24, rid, queue, ids}. Back to the tail of their queue with a fresh count, in the order in which they were put.
mh.on[24] = function(s, r)
  local q = mh.queue(r[3])
  local letters = exhume(q, r[4])
  table.sort(letters, function(a, b) return a[3] < b[3] end)
  for _, letter in ipairs(letters) do
    -- A caller's id is known while its letter is here; putting it again must not take it for a second one.
    if letter[1][5] then call('HDEL', P .. ':known', letter[1][1]) end
    mh.change(q, 'unfinished', mh.add_one(q, letter[2]))
  end
  mh.wake(q)
  mh.count(s, r[2], #letters)
end

-- DeadDrop: {25, rid, queue, ids}
mh.on[25] = function(s, r)
  local letters = exhume(mh.queue(r[3]), r[4])
  for _, letter in ipairs(letters) do
    if letter[1][5] then call('HDEL', P .. ':known', letter[1][1]) end
  end
  mh.count(s, r[2], #letters)
end

-- Bury: {39, rid, {{queue, died_at, reason, history}, …}} and the letters' messages.
mh.on[39] = function(s, r, blobs)
  local here, new_n = {}, 0
  for i, letter in ipairs(r[3]) do
    local q = mh.queue(letter[1])
    local ids = here[q.name]
    if not ids then
      ids = {}
      here[q.name] = ids
      for _, n in ipairs(call('ZRANGE', q.key .. ':x', 0, -1)) do ids[mh.entry(q, n)[1]] = true end
    end
    local e = mh.fresh(blobs[i])
    if not ids[e[1]] then
      ids[e[1]], new_n = true, new_n + 1
      local n, history = fmt('%d', mh.next('n')), letter[4]
      call('HSET', q.key .. ':m', n, blobs[i], n .. 'r', letter[3])
      if #history > 0 then call('HSET', q.key .. ':m', n .. 'h', pack(history)) end
      mh.note_entry(q, n, e)
      call('ZADD', q.key .. ':x', letter[2], n)
      mh.change(q, 'died', mh.calls_in(e))
      if e[5] then call('HSET', P .. ':known', e[1], 0) end
      if e[2] > 0 then
        local is_lost = #history > 0 and history[#history][5] == 'lost'
        call('HSET', P .. ':buried', e[1], pack({is_lost and 'worker_crashed' or 'task', letter[3]}))
      end
    end
  end
  mh.count(s, r[2], new_n)
end
