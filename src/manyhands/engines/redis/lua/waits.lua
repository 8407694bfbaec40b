-- Parked requests: data like everything else, so that whoever acts serves them. Each is a record in its session's hash `p`
-- by its key (the rid as text; a request without one gets a key of its own) and a place in its queue's line.
local LINES = {L = 'w', P = 'p', J = 'j'}
local COUNTS = {L = 'waiting', P = 'putting', J = 'joining'}

-- The queues in whose lines it stands: a lease may name several.
local function queues_of(rec)
  local queues = {mh.queue(rec[2])}
  if rec[1] == 'L' then
    for _, name in ipairs(rec[8]) do queues[#queues + 1] = mh.queue(name) end
  end
  return queues
end
mh.queues_of = queues_of

-- rec is {kind, queue or id, rid, key, …}.
function mh.park(s, rec, wait_s)
  local order = mh.next('order')
  local rid = rec[3]
  if rid ~= 0 and call('HEXISTS', s.key .. ':p', fmt('%d', rid)) == 1 then
    mh.fail(s, rid, 'usage', fmt('request %d is still waiting; each request needs a rid of its own', rid))
    return false
  end
  rec[4] = rid ~= 0 and fmt('%d', rid) or '#' .. fmt('%d', order)
  call('HSET', s.key .. ':p', rec[4], pack(rec))
  local member = rec[4] .. ':' .. s.id
  if rec[1] == 'R' then
    call('ZADD', P .. ':rw:' .. rec[2], order, member)
    G.results_waited = G.results_waited + 1
  elseif rec[1] ~= 'C' then
    for _, q in ipairs(queues_of(rec)) do
      call('ZADD', q.key .. ':' .. LINES[rec[1]], order, member)
      mh.change(q, COUNTS[rec[1]], 1)
    end
  end
  if wait_s > 0 then mh.at(now + wait_s, 'p:' .. member) end
  return true
end

function mh.parked(s, key)
  local raw = call('HGET', s.key .. ':p', key)
  return raw and unp(raw)
end

-- It is answered or withdrawn.
function mh.unpark(s, rec)
  local member = rec[4] .. ':' .. s.id
  call('HDEL', s.key .. ':p', rec[4], rec[4] .. 'b')
  mh.never('p:' .. member)
  if rec[1] == 'R' then
    call('ZREM', P .. ':rw:' .. rec[2], member)
    G.results_waited = G.results_waited - 1
    return
  end
  if rec[1] == 'C' then return mh.withdraw_collect(s, rec) end
  for _, q in ipairs(queues_of(rec)) do
    call('ZREM', q.key .. ':' .. LINES[rec[1]], member)
    mh.change(q, COUNTS[rec[1]], -1)
    if rec[1] == 'L' and rec[7] then mh.change(q, 'last_calls', -1) end
  end
  if rec[1] == 'P' and rec[5] > 0 then
    call('HDEL', s.key .. ':pp', rec[2] .. '\0' .. fmt('%d', rec[5]))
    s.puts, s.is_changed = s.puts - 1, true
  end
end

function mh.who(member)
  local key, sid = string.match(member, '^([^:]*):(.*)$')
  return mh.session(sid), key
end

-- The first in a line whose session can hear the answer, and its record. The others are taken out: their client is gone.
function mh.first_of(q, line)
  while true do
    local member = call('ZRANGE', q.key .. ':' .. line, 0, 0)[1]
    if not member then return end
    local s, key = mh.who(member)
    if not s then
      call('ZREM', q.key .. ':' .. line, member)
    elseif not mh.is_alive(s.client) then
      mh.client_gone(s.client)
    else
      return s, mh.parked(s, key)
    end
  end
end

-- The wait of a parked request is over.
function mh.end_wait(s, rec)
  if rec[1] == 'L' then mh.end_lease_wait(s, rec)
  elseif rec[1] == 'P' then mh.refuse_put(s, rec)
  elseif rec[1] == 'J' then mh.answer_join(s, rec)
  elseif rec[1] == 'C' then mh.answer_collect(s, rec)
  else mh.end_result_wait(s, rec) end
end

function mh.withdraw_all(s)
  local all = call('HGETALL', s.key .. ':p')
  for i = 1, #all, 2 do
    if sub(all[i], -1) ~= 'b' then
      local rec = unp(all[i + 1])
      mh.unpark(s, rec)
      if rec[1] == 'P' then mh.wake(mh.queue(rec[2])) end
    end
  end
end

-- Withdraw: end the wait now. The request is answered in its usual way.
mh.on[4] = function(s, r)
  local rec = mh.parked(s, fmt('%d', r[2]))
  if not rec then return end
  if rec[1] == 'L' then mh.answer_empty(s, rec) else mh.end_wait(s, rec) end
end
