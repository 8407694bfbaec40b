-- One queue's numbers and order.
--
--   b  hash: the bodies that calls of packs share, and how many do
--   r  ready: members are message numbers ("7!" is a suspect, which travels alone), by place in the order:
--      given back ones by number, then one class of scores for each priority, in it by arrival
--   d  delayed, by due time        x  dead letters, by when they died
--   m  hash: "7" the message's bytes, "7e" what is known of it beside them, "7h" history, "7u" what was put under its
--      leases, "7r" why it died. A plain message that was never given back has only the first.
--   w, p, j  who waits for a message, for room, for the end, in line
--   ub  session to how many it holds unbegun        rc  session to when its answer to a recall is overdue
local Q, dirty, shared
mh.begins[#mh.begins + 1] = function() Q, dirty, shared = {}, {}, {} end
local FIELDS = {
  'max', 'is_shut', 'leased', 'unbegun', 'unfinished', 'put', 'done', 'redelivered', 'died', 'waiting', 'putting',
  'joining', 'last_calls', 'is_armed', 'children', 'parked',
}
local CLASS = 2 ^ 47

-- The queue of that name if it exists.
function mh.known(name)
  local q = Q[name]
  if q == nil then
    local key = P .. ':q:' .. name
    local values = call('HMGET', key, unpack(FIELDS))
    if values[1] then
      local was = {}
      q = {name = name, key = key, was = was}
      for i, value in ipairs(values) do
        local number = tonumber(value or 0)
        q[FIELDS[i]], was[FIELDS[i]] = number, number
      end
    else
      q = false
    end
    Q[name] = q
  end
  return q
end

-- The queue of that name, made if it is new.
function mh.queue(name)
  local q = mh.known(name)
  if not q then
    q = {name = name, key = P .. ':q:' .. name, was = {}, is_changed = true}
    for _, field in ipairs(FIELDS) do q[field] = 0 end
    Q[name] = q
    call('SADD', P .. ':queues', name)
  end
  return q
end

function mh.change(q, field, by)
  q[field] = q[field] + by
  q.is_changed = true
end

function mh.save_queues()
  for _, q in pairs(Q) do
    if q and q.is_changed then mh.save(q.key, q, q.was, FIELDS) end
  end
end

function mh.ready_n(q) return call('ZCARD', q.key .. ':r') end

-- What no get has returned: qsize, and what the bound counts.
function mh.size(q)
  return mh.ready_n(q) + call('ZCARD', q.key .. ':d') + q.unbegun
end

-- Somebody may be waiting for what just happened to this queue.
function mh.wake(q)
  if q.waiting > 0 or q.putting > 0 or q.joining > 0 then dirty[q] = true end
end

function mh.serve_dirty()
  mh.serve_streams()
  local q = next(dirty)
  while q do
    dirty[q] = nil
    if q.putting > 0 then mh.admit(q) end
    if q.waiting > 0 then mh.serve(q) end
    if q.joining > 0 and q.unfinished == 0 then mh.answer_joins(q) end
    q = next(dirty)
    if not q then
      mh.serve_streams()
      q = next(dirty)
    end
  end
end

function mh.lane_score(priority)
  return (10 - priority) * CLASS + mh.next('order')
end

-- Give back an entry: before every first delivery, among the given back by age.
function mh.push_head(q, n, is_suspect)
  call('ZADD', q.key .. ':r', n, is_suspect and n .. '!' or n)
end

function mh.push_delayed(q, n, due_at)
  call('ZADD', q.key .. ':d', due_at, n)
  mh.at_soonest(due_at, 'd:' .. q.name)
end

-- Make ready what is due.
function mh.promote(q)
  local due = call('ZRANGEBYSCORE', q.key .. ':d', '-inf', now, 'LIMIT', 0, 1000)
  for _, n in ipairs(due) do
    call('ZREM', q.key .. ':d', n)
    local e, blob = mh.entry(q, n)
    if e[8] > 0 or e[9] then
      mh.push_head(q, n, e[9])
    else
      call('ZADD', q.key .. ':r', mh.lane_score(e[3]), n)
    end
  end
  if #due > 0 then mh.wake(q) end
  local first = call('ZRANGE', q.key .. ':d', 0, 0, 'WITHSCORES')
  if first[2] then mh.at_soonest(first[2], 'd:' .. q.name) end
end

-- What is known of a message: {id, kind, priority, max_deliveries, is_dedupe, expires_at, keep_result_s, deliveries,
-- is_suspect, reply_to, calls, part, need, first, end}; need is '' unless it is parked, [first, end) are the calls that a lease
-- of a pack still has once that is less than all. Read from its bytes when nothing was noted yet.
function mh.entry(q, n)
  local raw = call('HGET', q.key .. ':m', n .. 'e')
  if raw then return unp(raw) end
  return mh.fresh(mh.blob(q, call('HGET', q.key .. ':m', n)))
end

function mh.fresh(blob)
  local id, kind, priority, due_at, max_deliveries, options = mh.headers(blob)
  options = options or {}
  return {
    id, kind, priority, max_deliveries, options[1] or false, options[2] or 0, options[3] or 0, 0, false, options[4] or '',
    options[5] or 0, options[6] or -1, '', 0, 0,
  }, due_at
end

function mh.note_entry(q, n, e)
  call('HSET', q.key .. ':m', n .. 'e', pack(e))
end

-- A message's bytes as they are handed out. The calls of a pack share its body: they keep "\193", the number that it is kept
-- under in `b`, and what stands before and behind it.
function mh.blob(q, raw)
  if byte(raw) ~= 193 then return raw end
  local key, before, behind = unp(sub(raw, 2))
  return before .. call('HGET', q.key .. ':b', key) .. behind
end

function mh.share_body(q, key, body)
  local id = q.name .. '\0' .. key
  if not shared[id] then
    call('HSETNX', q.key .. ':b', key, body)
    shared[id] = true
  end
  call('HINCRBY', q.key .. ':b', key .. 'c', 1)
end

-- e: what was noted of it, if anything was.
function mh.forget_entry(q, n, e)
  if e and e[16] and call('HINCRBY', q.key .. ':b', e[16] .. 'c', -1) == 0 then
    call('HDEL', q.key .. ':b', e[16], e[16] .. 'c')
    shared[q.name .. '\0' .. e[16]] = nil
  end
  call('HDEL', q.key .. ':m', n, n .. 'e', n .. 'h', n .. 'u', n .. 'r')
end

-- Count n deliveries more (or fewer) that this session holds and no get has returned.
function mh.hold_unbegun(q, sid, n)
  mh.change(q, 'unbegun', n)
  if call('HINCRBY', q.key .. ':ub', sid, n) == 0 then call('HDEL', q.key .. ':ub', sid) end
end

function mh.stats(q)
  local parked = {}
  for i, value in ipairs(q.parked > 0 and call('HGETALL', q.key .. ':nd') or {}) do
    parked[i] = i % 2 == 0 and pack(tonumber(value)) or pack(value)
  end
  return arr(15) .. pack(
    q.name, q.max, mh.ready_n(q), call('ZCARD', q.key .. ':d'), q.leased, q.unbegun, call('ZCARD', q.key .. ':x'),
    q.unfinished, q.waiting, q.put, q.done, q.redelivered, q.died, q.is_shut == 1
  ) .. '\222' .. char(floor(#parked / 512), #parked / 2 % 256) .. table.concat(parked)
end
