-- Putting messages into a queue: all or none, in order, never the same one twice.
--
-- A Put arrives as {2, rid, queue, seq, floor, is_plain, wait_s, causes} and its messages as bytes. is_plain: no message has
-- a header, so nothing in their bytes needs reading. What is wrong by itself the client has refused already (refuse.py).
local CHUNK = 500

-- Declare: {1, rid, queue, maxsize}
mh.on[1] = function(s, r)
  local rid, maxsize = r[2], max(0, r[4])
  local q = mh.queue(r[3])
  if maxsize > 0 and q.max > 0 and maxsize ~= q.max then
    return mh.fail(s, rid, 'usage', fmt(
      "queue '%s' already has maxsize %d, so it cannot be opened with %d; use the same number, or 0 to keep what there is",
      q.name, q.max, maxsize))
  end
  if maxsize > 0 then q.max, q.is_changed = maxsize, true end
  mh.done(s, rid)
end

-- A refused put reaches the leases that it was sent under: the settlements behind it must not end them as done.
local function nack_causes(s, causes, reason)
  for _, cause in ipairs(causes) do
    local token = fmt('%d', cause)
    local raw = call('HGET', s.key .. ':t', token)
    if raw then
      call('HDEL', s.key .. ':t', token)
      local rec = unp(raw)
      local q = mh.queue(rec[1])
      mh.release(q, rec, s.id)
      mh.give_back(q, rec, {consumer = s.name, outcome = 'nack', reason = reason})
    end
  end
end

local function has_live_cause(s, causes)
  for _, cause in ipairs(causes) do
    if call('HEXISTS', s.key .. ':t', fmt('%d', cause)) == 1 then return true end
  end
  return #causes == 0
end

local function lost_text(name)
  return fmt("the message under whose lease this was put into queue '%s' belongs to another consumer now; "
    .. 'nothing was put, its new holder will do it again', name)
end

local function full_text(q) return fmt("queue '%s' is full (%d of %d)", q.name, mh.size(q), q.max) end

local function shut_text(q) return fmt("queue '%s' was shut down and takes nothing more", q.name) end

-- Note that a message with this id is put under a lease of message n; false: the same was put before.
local function note_put(q, n, id)
  local raw = call('HGET', q.key .. ':m', n .. 'u')
  local ids = raw and unp(raw) or {}
  for _, known in ipairs(ids) do
    if known == id then return false end
  end
  ids[#ids + 1] = id
  call('HSET', q.key .. ':m', n .. 'u', pack(ids))
  return true
end

-- The messages without those that were already put under the same leased message; and the causes that were lost.
local function under_leases(s, causes, blobs)
  local fresh, lost = {}, {}
  for i, blob in ipairs(blobs) do
    local raw = call('HGET', s.key .. ':t', fmt('%d', causes[i]))
    if not raw then
      lost[#lost + 1] = causes[i]
    else
      local rec = unp(raw)
      local from, at = span(blob, 2)
      if note_put(mh.queue(rec[1]), rec[2], sub(blob, from, at - 1)) then fresh[#fresh + 1] = blob end
    end
  end
  return fresh, lost
end

-- Add one message with headers; how many calls it is, 0 if it was left out.
local function add_one(q, blob, s)
  local e, due_at = mh.fresh(blob)
  local id, expires_at = e[1], e[6]
  if expires_at > 0 and expires_at <= now then return 0 end  -- its time was over before it came
  if e[5] and call('HSETNX', P .. ':known', id, 0) == 0 then return 0 end
  local n = fmt('%d', mh.next('n'))
  call('HSET', q.key .. ':m', n, blob)
  if e[2] > 0 or e[5] or expires_at > 0 or e[7] > 0 or e[10] ~= '' then mh.note_entry(q, n, e) end
  mh.know(q, n, e, s)
  if due_at > now then
    mh.push_delayed(q, n, due_at)
  else
    call('ZADD', q.key .. ':r', mh.lane_score(e[3]), n)
  end
  if expires_at > 0 then mh.at(expires_at, 'x:' .. n .. ':' .. q.name) end
  return mh.calls_in(e)
end
mh.add_one = add_one

local function add_plain(q, blobs)
  for from = 1, #blobs, CHUNK do
    local bodies, places, k = {}, {}, 0
    for i = from, min(from + CHUNK - 1, #blobs) do
      local n = fmt('%d', mh.next('n'))
      k = k + 2
      bodies[k - 1], bodies[k] = n, blobs[i]
      places[k - 1], places[k] = mh.lane_score(0), n
    end
    call('HSET', q.key .. ':m', unpack(bodies))
    call('ZADD', q.key .. ':r', unpack(places))
  end
  return #blobs
end

-- Add the messages; the causes that were lost, whose messages were left out.
local function add(s, q, is_plain, causes, blobs)
  local lost = {}
  if #causes > 0 then blobs, lost = under_leases(s, causes, blobs) end
  local n = 0
  if is_plain then
    n = add_plain(q, blobs)
  else
    for _, blob in ipairs(blobs) do n = n + add_one(q, blob, s) end
  end
  mh.change(q, 'put', n)
  mh.change(q, 'unfinished', n)
  mh.wake(q)
  return lost
end

local function answer(s, rid, lost)
  if #lost > 0 then mh.settled(s, rid, lost) else mh.done(s, rid) end
end

mh.on[2] = function(s, r, blobs)
  local rid, name, seq, floor_, wait_s, causes = r[2], r[3], r[4], r[5], r[7], r[8]
  if seq > 0 then
    local mark = mh.mark(s, name)
    if mh.is_applied(mark, seq) then return mh.done(s, rid) end
    local text = mh.beyond(mark, seq, floor_)
    if text then return mh.fail(s, rid, 'usage', text) end
    if s.puts > 0 then
      local key = call('HGET', s.key .. ':pp', name .. '\0' .. fmt('%d', seq))
      if key then
        -- A resend of a put that is parked waits along with it.
        local first = mh.parked(s, key)
        first[9][#first[9] + 1] = rid
        call('HSET', s.key .. ':p', key, pack(first))
        return
      end
    end
  end
  local q = mh.queue(name)
  local code, text
  if q.max > 0 and #blobs > q.max then
    code, text = 'usage', fmt("%d messages at once can never fit into queue '%s' with maxsize %d; put fewer at a time",
      #blobs, name, q.max)
  elseif not has_live_cause(s, causes) then
    code, text = 'lease_lost', lost_text(name)
  elseif q.is_shut == 1 then
    code, text = 'shut_down', shut_text(q)
  elseif q.max > 0 and (q.putting > 0 or mh.size(q) + #blobs > q.max) then
    if wait_s == 0 then
      code, text = 'full', full_text(q)
    else
      local rec = {'P', name, rid, '', seq, floor_, r[6], causes, {}, #blobs}
      if not mh.park(s, rec, wait_s) then return end
      call('HSET', s.key .. ':p', rec[4] .. 'b', pack(blobs))
      if seq > 0 then
        call('HSET', s.key .. ':pp', name .. '\0' .. fmt('%d', seq), rec[4])
        s.puts, s.is_changed = s.puts + 1, true
        mh.note(s, name, seq, floor_, false)
      end
      -- Room may have come in this same step, for those in front.
      return mh.wake(q)
    end
  end
  if code then return mh.on.refuse_put(s, {0, rid, name, seq, floor_, causes, code, text}) end
  local lost = add(s, q, r[6], causes, blobs)
  mh.note(s, name, seq, floor_, true)
  answer(s, rid, lost)
end

-- {_, rid, queue, seq, floor, causes, code, text}: a put that is refused, here or (with rid 0: it answers itself) by the
-- client that looked at it.
mh.on.refuse_put = function(s, r)
  mh.note(s, r[3], r[4], r[5], false)
  nack_causes(s, r[6], r[8])
  mh.fail(s, r[2], r[7], r[8])
end

-- The wait of a parked put is over.
function mh.refuse_put(s, rec)
  local q = mh.queue(rec[2])
  mh.unpark(s, rec)
  local code, text = 'full', full_text(q)
  if q.is_shut == 1 then code, text = 'shut_down', shut_text(q) end
  mh.fail(s, rec[3], code, text)
  for _, rid in ipairs(rec[9]) do mh.fail(s, rid, code, text) end
  nack_causes(s, rec[8], text)
  mh.wake(q)
end

-- Let parked puts in, first come first served, as long as the next one fits whole.
function mh.admit(q)
  while q.putting > 0 do
    local s, rec = mh.first_of(q, 'p')
    if not s then return end
    if q.is_shut == 1 then
      mh.refuse_put(s, rec)
    elseif q.max > 0 and mh.size(q) + rec[10] > q.max then
      return
    else
      local blobs = unp(call('HGET', s.key .. ':p', rec[4] .. 'b'))
      mh.unpark(s, rec)
      rec[9][#rec[9] + 1] = rec[3]
      if has_live_cause(s, rec[8]) then
        local lost = add(s, q, rec[7], rec[8], blobs)
        mh.note(s, rec[2], rec[5], rec[6], true)
        for _, rid in ipairs(rec[9]) do answer(s, rid, lost) end
      else
        for _, rid in ipairs(rec[9]) do mh.fail(s, rid, 'lease_lost', lost_text(q.name)) end
      end
    end
  end
end
