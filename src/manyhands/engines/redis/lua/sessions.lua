-- Who is here: sessions, the clients (one for each process's engine) that they came through, and when they count as lost.
--
--   attach ──> connected ──detach──> away ──resume_s over──> leases returned, watermarks kept ──24 h──> forgotten
--               ^   │ └─lease_s silent: leases returned        │
--               │   └── goodbye: forgotten at once             │
--               └───────────────── attach ─────────────────────┘
--
-- A client is alive while its channel has a subscriber: Redis drops the subscription in the moment in which the process
-- dies, so nobody is ever granted a message that no process would hear of.
local S, alive
mh.begins[#mh.begins + 1] = function() S, alive = {}, {} end
local CHUNK = 500
local FIELDS = {'client', 'gen', 'name', 'connected', 'heard', 'here', 'watched', 'away', 'attached', 'ended', 'puts', 'recalls', 'offers', 'parent'}
local TEXTS = {client = true, name = true, parent = true}

function mh.session(sid)
  local s = S[sid]
  if s == nil then
    local key = P .. ':s:' .. sid
    local v = call('HMGET', key, unpack(FIELDS))
    s = false
    if v[2] then
      s = {id = sid, key = key}
      for i, field in ipairs(FIELDS) do s[field] = TEXTS[field] and v[i] or tonumber(v[i] or 0) end
    end
    S[sid] = s
  end
  return s
end

function mh.save_sessions()
  for _, s in pairs(S) do
    if s and s.is_changed then
      local all = {}
      for i, field in ipairs(FIELDS) do all[2 * i - 1], all[2 * i] = field, s[field] end
      call('HSET', s.key, unpack(all))
    elseif s and s.is_heard then
      call('HSET', s.key, 'heard', s.heard)
    end
  end
end

function mh.heard(s)
  s.heard, s.is_heard = now, true
end

function mh.forget_session(s)
  call('DEL', s.key, s.key .. ':t', s.key .. ':p', s.key .. ':k', s.key .. ':pp', s.key .. ':rq', s.key .. ':st', s.key .. ':of')
  call('SREM', P .. ':sessions', s.id)
  mh.never('w:' .. s.id)
  mh.never('f:' .. s.id)
  S[s.id] = false
end

function mh.channel(client) return P .. ':c:' .. client end

function mh.is_alive(client)
  if client == me then return true end
  local is = alive[client]
  if is == nil then
    is = call('PUBSUB', 'SHARDNUMSUB', mh.channel(client))[2] > 0
    alive[client] = is
  end
  return is
end

-- Look after a session that holds leases: they return when nothing was heard of it for lease_s.
function mh.watch(s)
  s.watched, s.is_changed = 1, true
  local due = s.connected == 1 and s.heard + lease_s or s.away
  mh.at(max(due, now), 'w:' .. s.id)
end

function mh.look(s)
  s.watched, s.is_changed = 0, true
  if call('HLEN', s.key .. ':t') == 0 then return end
  if s.connected == 1 and s.here == 1 then
    -- It lives in its client's process: while that one is heard of, silence means that it works.
    s.heard = max(s.heard, tonumber(call('HGET', P .. ':pulses', s.client) or 0))
  end
  local due = s.connected == 1 and s.heard + lease_s or s.away
  if now < due then
    mh.watch(s)
  elseif s.connected == 1 then
    mh.lose_leases(s, fmt('nothing was heard of it for %.1f s', now - s.heard))
  else
    mh.lose_leases(s, 'its connection ended and it did not come back')
  end
end

-- How a lease ended: its counts are taken back. rec is {queue, n, is_begun, leased_at, deliveries, has_entry, is_suspect}.
function mh.release(q, rec, sid)
  mh.change(q, 'leased', -1)
  if not rec[3] then mh.hold_unbegun(q, sid, -1) end
end

function mh.end_leases(s, each)
  local all = call('HGETALL', s.key .. ':t')
  call('DEL', s.key .. ':t')
  for i = 2, #all, 2 do
    local rec = unp(all[i])
    local q = mh.queue(rec[1])
    mh.release(q, rec, s.id)
    each(q, rec)
  end
end

-- A consumer is lost: what it had begun is charged; all of it goes to the head and travels alone from now.
function mh.lose_leases(s, reason)
  mh.end_leases(s, function(q, rec)
    mh.give_back(q, rec, {consumer = s.name, outcome = rec[3] and 'lost' or '', reason = reason, is_suspect = true})
  end)
end

-- A consumer ends on purpose: what it had begun is charged, the rest is not; no neighbour is suspected.
function mh.return_leases(s)
  mh.end_leases(s, function(q, rec)
    mh.give_back(q, rec, {
      consumer = s.name, outcome = rec[3] and 'released' or '', reason = 'goodbye', is_suspect = not rec[3] and rec[7],
    })
  end)
end

-- It will not answer its recalls; nobody shall wait for that.
local function answer_nothing(s)
  if s.recalls == 0 then return end
  for _, name in ipairs(call('SMEMBERS', s.key .. ':rq')) do
    local q = mh.queue(name)
    call('HDEL', q.key .. ':rc', s.id)
    mh.wake(q)
  end
  call('DEL', s.key .. ':rq')
  s.recalls, s.is_changed = 0, true
end

local function connected(s, is)
  if s.connected ~= is then G.connected = G.connected + (is == 1 and 1 or -1) end
  s.connected, s.is_changed = is, true
end

-- Its connection ended. What it waited for is withdrawn: a message must never be handed to nobody.
function mh.detach(s, away_s, reason)
  mh.withdraw_all(s)
  connected(s, 0)
  call('SREM', P .. ':cs:' .. s.client, s.id)
  answer_nothing(s)
  if away_s then
    s.away = now + away_s
    if call('HLEN', s.key .. ':t') > 0 then mh.watch(s) end
  else
    mh.lose_leases(s, reason)
  end
  s.ended = now
  mh.watch_streams(s)
  mh.at(now + kept_s, 'f:' .. s.id)
end

function mh.client_gone(client, away_s)
  for _, sid in ipairs(call('SMEMBERS', P .. ':cs:' .. client)) do
    local s = mh.session(sid)
    if s and s.connected == 1 and s.client == client then mh.detach(s, away_s or resume_s) end
  end
  call('DEL', P .. ':cs:' .. client)
  call('ZREM', P .. ':clients', client)
  call('HDEL', P .. ':pulses', client)
end

-- Whoever pulses first in a while looks for clients that are gone.
function mh.check_clients()
  G.checked = now
  local clients = call('ZRANGE', P .. ':clients', 0, -1)
  for from = 1, #clients, CHUNK do
    local channels = {}
    for i = from, min(from + CHUNK - 1, #clients) do channels[#channels + 1] = mh.channel(clients[i]) end
    local heard = call('PUBSUB', 'SHARDNUMSUB', unpack(channels))
    for i = 1, #channels do
      local client = clients[from + i - 1]
      alive[client] = heard[2 * i] > 0
      if not mh.is_alive(client) then mh.client_gone(client) end
    end
  end
end

-- The server, or every client, did not run for a while: nobody could be heard, so everybody's time starts anew.
function mh.credit()
  for _, sid in ipairs(call('SMEMBERS', P .. ':sessions')) do
    local s = mh.session(sid)
    if s then
      s.heard, s.away, s.is_changed = now, max(s.away, now + resume_s), true
    end
  end
end

local function open_queues()
  for _, name in ipairs(call('SMEMBERS', P .. ':queues')) do
    local q = mh.queue(name)
    if q.is_shut == 1 then q.is_shut, q.is_changed = 0, true end
  end
  G.shut = 0
end

-- A client has connected. Another run of the server: it may have lost its last moment, so tokens skip what that may have
-- granted; who held leases before has lease_s to come back.
mh.on.meet = function(_, r)
  if call('HGET', P .. ':g', 'run') ~= r[2] then
    call('HSET', P .. ':g', 'run', r[2])
    G.token = G.token + 2 ^ 20
    for _, client in ipairs(call('ZRANGE', P .. ':clients', 0, -1)) do mh.client_gone(client, lease_s) end
    mh.credit()
    for _, sid in ipairs(call('SMEMBERS', P .. ':sessions')) do
      local s = mh.session(sid)
      if s and s.connected == 0 then
        s.away = now + lease_s
        if call('HLEN', s.key .. ':t') > 0 then mh.watch(s) end
      end
    end
    open_queues()
  end
  mh.on.pulse(nil, r)
end

mh.on.pulse = function(_, r)
  local is_new = call('HSET', P .. ':pulses', me, now) == 1
  if is_new then call('ZADD', P .. ':clients', mh.next('order'), me) end
  -- One that pulses and is not known was taken for dead meanwhile: its sessions must come back.
  mh.is_well = call('PUBSUB', 'SHARDNUMSUB', mh.channel(me))[2] > 0 and (not is_new or r[1] == 'meet')
  if now - G.checked > pulse_s / 2 then mh.check_clients() end
end

mh.on.leave = function()
  mh.client_gone(me)
end

-- {sid, name, held or false, is_here}; the answer goes to the caller alone: {gen, is_resumed, lost}.
mh.on.attach = function(_, r)
  local sid, name, held, here, parent = r[2], r[3], r[4], r[5], r[6]
  if G.shut > 0 then
    mh.check_clients()
    -- An engine to which nobody was connected is opened by who comes first.
    if G.connected == 0 then open_queues() end
  end
  local s = mh.session(sid)
  local is_known = s and true
  if not s then
    s = {id = sid, key = P .. ':s:' .. sid}
    for _, field in ipairs(FIELDS) do s[field] = TEXTS[field] and '' or 0 end
    S[sid] = s
    call('SADD', P .. ':sessions', sid)
  elseif s.connected == 1 then
    mh.withdraw_all(s)
    call('SREM', P .. ':cs:' .. s.client, sid)
  end
  if name ~= '' then s.name = name end
  s.parent = parent ~= sid and parent or ''
  connected(s, 1)
  mh.never('f:' .. sid)
  s.client, s.gen, s.here, s.attached, s.heard = me, mh.next('gen'), here and 1 or 0, now, now
  call('SADD', P .. ':cs:' .. me, sid)
  local kept, lost = {}, {}
  local leases = call('HGETALL', s.key .. ':t')
  for _, token in ipairs(held or {}) do kept[fmt('%d', token)] = token end
  local names = {}
  for i = 1, #leases, 2 do
    local rec = unp(leases[i + 1])
    local q = mh.queue(rec[1])
    if kept[leases[i]] then
      kept[leases[i]] = nil
      if not rec[3] or s.parent ~= '' then names[q] = true end
    else
      call('HDEL', s.key .. ':t', leases[i])
      mh.release(q, rec, sid)
      mh.give_back(q, rec, {is_suspect = rec[7]})
    end
  end
  for _, token in ipairs(held or {}) do
    if kept[fmt('%d', token)] then lost[#lost + 1] = token end
  end
  if call('HLEN', s.key .. ':t') > 0 then mh.watch(s) end
  for q in pairs(names) do
    if s.parent ~= '' then mh.add_child(q, s) end
    mh.arm(q)
  end
  mh.answer = pack({s.gen, is_known and held and true or false, lost})
end

mh.on.detach = function(s) mh.detach(s, resume_s) end

-- Goodbye: it ends for good.
mh.on[15] = function(s)
  mh.withdraw_all(s)
  mh.return_leases(s)
  connected(s, 0)
  call('SREM', P .. ':cs:' .. s.client, s.id)
  answer_nothing(s)
  mh.watch_streams(s, true)
  mh.forget_session(s)
end

-- Ping
mh.on[14] = function(s, r)
  if r[2] ~= 0 then mh.reply(s, '\146' .. pack(71, r[2])) end
end

-- ReportDead
-- {16, rid, session, reason, token, part, settlement or nil, is_idle}, and the settlement's result as a body
mh.on[16] = function(s, r, bodies)
  if r[3] == s.id then return mh.fail(s, r[2], 'usage', 'a session cannot report itself dead; say goodbye') end
  local dead = mh.session(r[3])
  if dead then
    local reason = r[4] ~= '' and r[4] or 'its parent reported it dead'
    if r[5] ~= 0 or r[8] then mh.end_running(dead, r, bodies[1], reason) end
    mh.detach(dead, nil, reason)
  end
  mh.done(s, r[2])
end

-- Extend: having been heard is all that it takes; the answer names those that do not stand any more.
mh.on[8] = function(s, r)
  local lost = {}
  for _, token in ipairs(r[3]) do
    if call('HEXISTS', s.key .. ':t', fmt('%d', token)) == 0 then lost[#lost + 1] = token end
  end
  mh.settled(s, r[2], lost)
end
