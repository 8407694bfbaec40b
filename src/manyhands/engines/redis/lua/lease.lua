-- Handing out, and what a holder says of what it holds.
local FIRST, MOST = 16, 512  -- how many are read at a time; bodies may be large
local ENOUGH_BYTES = 8 * 1024 * 1024
local AGAIN_S = 0.05  -- a call that runs longer is a long one: what waits behind it in its pack goes to others

local function nothing_more(q) return fmt("queue '%s' was shut down and has nothing more", q.name) end

-- The numbers of the next messages to hand out, at most n. A suspect comes alone, unless nobody is going to run it.
local function take(q, n, is_move)
  local popped = call('ZPOPMIN', q.key .. ':r', n)
  local taken, back, is_suspect = {}, {}, false
  for i = 1, #popped, 2 do
    local member = popped[i]
    local suspect = sub(member, -1) == '!'
    if suspect and is_move then member, suspect = sub(member, 1, -2), false end
    if is_suspect or (suspect and #taken > 0) or #back > 0 then
      back[#back + 1], back[#back + 2] = popped[i + 1], member
    else
      is_suspect = suspect
      taken[#taken + 1] = suspect and sub(member, 1, -2) or member
    end
  end
  if #back > 0 then call('ZADD', q.key .. ':r', unpack(back)) end
  return taken, is_suspect
end

-- The numbers of the next messages that are not due yet, soonest first, and when each is; not those that wait for another
-- attempt.
local function take_early(q, n)
  local taken, due, at = {}, {}, 0
  while #taken < n do
    local found = call('ZRANGE', q.key .. ':d', at, at + n - #taken - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local raw = call('HGET', q.key .. ':m', found[i] .. 'e')
      if raw and unp(raw)[8] > 0 then
        at = at + 1
      else
        taken[#taken + 1], due[#taken + 1] = found[i], tonumber(found[i + 1])
        call('ZREM', q.key .. ':d', found[i])
      end
    end
    if #found == 0 then break end
  end
  return taken, due
end

-- Lease up to max_n messages to a session; the first begin_n count as begun. The Granted reply's deliveries, and how many.
local function grant(s, q, max_n, begin_n, is_move)
  local out, total, unbegun_n, bytes, at_once = {}, 0, 0, 0, FIRST
  local due
  while total < max_n and bytes < ENOUGH_BYTES do
    local asked = min(at_once, max_n - total)
    local taken, is_suspect = {}, false
    if total == 0 then taken, is_suspect = mh.take_parked(q, s, asked) end
    if #taken == 0 then taken, is_suspect = take(q, asked, is_move) end
    if #taken == 0 and is_move and (total == 0 or due) then taken, due = take_early(q, asked) end
    if #taken == 0 then break end
    if is_suspect and total > 0 then
      mh.push_head(q, taken[1], true)
      break
    end
    local fields = {}
    for i, n in ipairs(taken) do fields[2 * i - 1], fields[2 * i] = n, n .. 'e' end
    local found = call('HMGET', q.key .. ':m', unpack(fields))
    local leases = {}
    for i, n in ipairs(taken) do
      local blob, raw = found[2 * i - 1], found[2 * i]
      local deliveries, suspect = 1, false
      if raw then
        local e = unp(raw)
        deliveries, suspect = e[8] + 1, e[9]
      end
      local is_begun = total < begin_n or is_suspect
      if not is_begun then unbegun_n = unbegun_n + 1 end
      total = total + 1
      local token = mh.next('token')
      leases[2 * i - 1] = fmt('%d', token)
      leases[2 * i] = pack({q.name, n, is_begun, now, deliveries, raw and true or false, suspect, due and due[i]})
      out[total] = '\147' .. pack(token, deliveries) .. mh.blob(q, blob)
      bytes = bytes + #blob
    end
    call('HSET', s.key .. ':t', unpack(leases))
    if is_suspect or #taken < asked then break end
    at_once = min(MOST, 4 * at_once)
  end
  if total == 0 then return end
  mh.change(q, 'leased', total)
  if unbegun_n > 0 then mh.hold_unbegun(q, s.id, unbegun_n) end
  if s.parent ~= '' then mh.add_child(q, s) end
  mh.arm(q)
  return arr(total) .. table.concat(out), total
end

-- Answer a lease with what there is; false: there was nothing.
local function give(s, q, rid, max_n, begin_n, is_named, is_move)
  local deliveries, n = grant(s, q, max_n, begin_n, is_move)
  if not deliveries then return false end
  if s.watched == 0 then mh.watch(s) end
  if q.putting > 0 then mh.wake(q) end
  mh.reply(s, (is_named and '\148' or '\147') .. pack(66, rid) .. deliveries .. (is_named and pack(q.name) or ''))
  return n
end

-- What is parked goes to those in line who can run it.
local function serve_parked(q)
  for _, member in ipairs(call('ZRANGE', q.key .. ':w', 0, -1)) do
    local s, key = mh.who(member)
    local rec = s and mh.is_alive(s.client) and mh.parked(s, key)
    if rec and mh.is_for(q, s) and give(s, q, rec[3], rec[5], rec[6], #rec[8] > 0) then
      mh.unpark(s, rec)
      mh.heard(s)
    end
  end
end

local function is_over(q) return q.is_shut == 1 and mh.size(q) == 0 end

-- Whether an answer to a recall is still to come, at any of the queues that it waits at.
local function is_pending(rec, s)
  for _, q in ipairs(mh.queues_of(rec)) do
    if mh.is_recall_pending(q, s) then return true end
  end
  return false
end

-- Share what is ready among those who wait, first come first served, and end the waits that are in vain.
function mh.serve(q)
  if q.parked > 0 then serve_parked(q) end
  local ready = mh.ready_n(q)
  while ready > 0 and q.waiting > 0 do
    local waiting_n = q.waiting
    local s, rec = mh.first_of(q, 'w')
    if not s then break end
    local n = give(s, q, rec[3], min(rec[5], ceil(ready / waiting_n)), rec[6], #rec[8] > 0, rec[9])
    if not n then break end
    mh.unpark(s, rec)
    -- What was given while it waited is heard of only now: its silence counts from here.
    mh.heard(s)
    ready = ready - n
  end
  if q.waiting > 0 and is_over(q) then
    for _, member in ipairs(call('ZRANGE', q.key .. ':w', 0, -1)) do
      local s, key = mh.who(member)
      local rec = s and mh.parked(s, key)
      local all_over = rec and true
      for _, one in ipairs(rec and mh.queues_of(rec) or {}) do all_over = all_over and is_over(one) end
      if all_over then
        mh.unpark(s, rec)
        mh.fail(s, rec[3], 'shut_down', nothing_more(mh.queue(rec[2])))
      end
    end
  end
  if q.last_calls > 0 then
    for _, member in ipairs(call('ZRANGE', q.key .. ':w', 0, -1)) do
      local s, key = mh.who(member)
      local rec = s and mh.parked(s, key)
      if rec and rec[7] and not is_pending(rec, s) then mh.answer_empty(s, rec) end
    end
  end
end

-- Lease: {3, rid, queue, max_n, begin_n, wait_s, also, is_move}
mh.on[3] = function(s, r)
  local rid, max_n, begin_n, wait_s = r[2], r[4], r[5], r[6]
  local names, seen = {}, {[r[3]] = true}
  for _, name in ipairs(r[7]) do
    if not seen[name] then seen[name], names[#names + 1] = true, name end
  end
  local rec = {'L', r[3], rid, '', max_n, begin_n, false, names, r[8]}
  local all_over, is_held = true, false
  for _, q in ipairs(mh.queues_of(rec)) do
    mh.promote_due(q)
    if q.waiting > 0 then mh.serve(q) end
    if (q.waiting == 0 or mh.is_for(q, s)) and give(s, q, rid, max_n, begin_n, #r[7] > 0, r[8]) then return end
    all_over = all_over and is_over(q)
    is_held = is_held or q.unbegun > 0 or q.children > 0
  end
  if all_over then return mh.fail(s, rid, 'shut_down', nothing_more(mh.queue(r[3]))) end
  if wait_s == 0 and (begin_n == 0 or not is_held) then
    return mh.reply(s, '\147' .. pack(66, rid) .. arr(0))
  end
  if not mh.park(s, rec, wait_s) then return end
  if wait_s == 0 then return mh.end_lease_wait(s, rec) end
  if begin_n > 0 then
    for _, q in ipairs(mh.queues_of(rec)) do mh.arm(q) end
  end
end

function mh.answer_empty(s, rec)
  mh.unpark(s, rec)
  mh.reply(s, '\147' .. pack(66, rec[3]) .. arr(0))
end

-- Its time is over: ask for what others have not begun, and wait for their answers only.
function mh.end_lease_wait(s, rec)
  if rec[7] then return mh.answer_empty(s, rec) end
  local queues = mh.queues_of(rec)
  if rec[6] > 0 then
    for _, q in ipairs(queues) do mh.ask(q) end
  end
  if rec[6] == 0 or not is_pending(rec, s) then return mh.answer_empty(s, rec) end
  rec[7] = true
  for _, q in ipairs(queues) do mh.change(q, 'last_calls', 1) end
  call('HSET', s.key .. ':p', rec[4], pack(rec))
  mh.at(now + recall_answer_s, 'p:' .. rec[4] .. ':' .. s.id)
end

-- Each of these tokens that is this session's unbegun lease of that queue.
local function unbegun(s, name, tokens, each)
  local n = 0
  for _, token in ipairs(tokens) do
    local field = fmt('%d', token)
    local raw = call('HGET', s.key .. ':t', field)
    local rec = raw and unp(raw)
    if rec and not rec[3] and rec[1] == name then
      n = n + 1
      each(field, rec)
    end
  end
  return n
end

-- Begin: {5, queue, tokens}. A get has returned these: they are charged if their holder dies.
mh.on[5] = function(s, r)
  local q = mh.known(r[2])
  if not q then return end
  local n = unbegun(s, q.name, r[3], function(field, rec)
    rec[3] = true
    call('HSET', s.key .. ':t', field, pack(rec))
  end)
  if n > 0 then
    mh.hold_unbegun(q, s.id, -n)
    mh.wake(q)
  end
end

-- Recalled: {6, queue, tokens}. What a holder names goes back to the head, charged nothing.
mh.on[6] = function(s, r)
  local q = mh.known(r[2])
  if not q then return end
  call('HDEL', q.key .. ':rc', s.id)
  if call('SREM', s.key .. ':rq', q.name) == 1 then s.recalls, s.is_changed = s.recalls - 1, true end
  local n = unbegun(s, q.name, r[3], function(field, rec)
    call('HDEL', s.key .. ':t', field)
    mh.release(q, rec, s.id)
    mh.give_back(q, rec, {is_suspect = rec[7]})
  end)
  if n > 0 then mh.arm(q) end
  mh.wake(q)
end

-- Recalls: asking busy holders for what they have not begun, so that nobody is idle or told "empty" while work lies
-- prefetched. The same rules as lifecycle/recalls.py.

-- See to it that holders are asked once somebody has waited recall_after_s.
-- is_again: a parent had nothing to give back; its child may be in the middle of a long call a little later.
function mh.arm(q, is_again)
  if q.waiting > 0 and (q.unbegun > 0 or q.children > 0) and q.is_armed == 0 then
    q.is_armed, q.is_changed = 1, true
    mh.at(now + (is_again and max(AGAIN_S, recall_after_s) or recall_after_s), 'c:' .. q.name)
  end
end

-- A session with a parent was given something here: the parent may give back what it has not begun.
function mh.add_child(q, s)
  if call('SADD', q.key .. ':ch', s.id) == 1 then mh.change(q, 'children', 1) end
end

-- How many of a child's leases its parent may give something back of: all but the one that runs, and packs.
local function behind_the_first(s, q)
  local all = call('HVALS', s.key .. ':t')
  local n = 0
  for _, raw in ipairs(all) do
    local rec = unp(raw)
    if rec[1] == q.name then
      if #all > 1 then
        n = n + 1
      elseif rec[6] then
        local e = mh.entry(q, rec[2])
        if e[11] > 1 and (e[15] == 0 or e[15] == e[11]) then n = n + 1 end
      end
    end
  end
  return n
end

-- Ask each holder for its fair share of what it has not begun; one question at a time for each.
function mh.ask(q)
  if q.unbegun == 0 and q.children == 0 then return end
  local waiting_n, only = 0, nil
  for _, member in ipairs(call('ZRANGE', q.key .. ':w', 0, 199)) do
    local s, key = mh.who(member)
    local rec = s and mh.parked(s, key)
    -- One with begin_n 0 only asks for what lies ready: nobody waits behind it.
    if rec and rec[6] > 0 then
      waiting_n = waiting_n + 1
      if only == nil then only = s.id elseif only ~= s.id then only = '' end
    end
  end
  if waiting_n == 0 then return end
  local asked, holders = call('HGETALL', q.key .. ':rc'), {}
  local overdue = {}
  for i = 1, #asked, 2 do overdue[asked[i]] = tonumber(asked[i + 1]) end
  local all, held, seen = call('HGETALL', q.key .. ':ub'), {}, {}
  for i = 1, #all, 2 do
    held[#held + 1] = {all[i], tonumber(all[i + 1])}
    seen[all[i]] = true
  end
  for _, sid in ipairs(q.children > 0 and call('SMEMBERS', q.key .. ':ch') or {}) do
    if not seen[sid] then held[#held + 1] = {sid, 0} end
  end
  for _, one in ipairs(held) do
    local s, n = mh.session(one[1]), one[2]
    if not s or s.connected == 0 then
      if call('SREM', q.key .. ':ch', one[1]) == 1 then mh.change(q, 'children', -1) end
    elseif s.id ~= only and (overdue[s.id] or 0) <= now then
      local parent = s.parent ~= '' and mh.session(s.parent)
      if parent and parent.connected == 1 then n = max(n, behind_the_first(s, q)) else parent = nil end
      if n > 0 then holders[#holders + 1] = {s, n, parent} end
    end
  end
  for _, holder in ipairs(holders) do
    local s, n, parent = holder[1], holder[2], holder[3]
    if call('SADD', s.key .. ':rq', q.name) == 1 then s.recalls, s.is_changed = s.recalls + 1, true end
    call('HSET', q.key .. ':rc', s.id, now + recall_answer_s)
    local share = ceil(n * waiting_n / (waiting_n + #holders))
    if parent then
      mh.reply(parent, '\148' .. pack(90, q.name, share, s.id))
    else
      mh.reply(s, '\147' .. pack(90, q.name, share))
    end
  end
end

-- Whether an answer from somebody else is still to come.
function mh.is_recall_pending(q, s)
  local asked = call('HGETALL', q.key .. ':rc')
  for i = 1, #asked, 2 do
    if asked[i] ~= s.id and tonumber(asked[i + 1]) > now then return true end
  end
  return false
end
