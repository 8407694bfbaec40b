-- What must happen at a time: one sorted set of "kind:subject". Every step runs what has become due before it ends, and tells
-- its caller when the next is; somebody who is awake sweeps then. Taking a timer out is one ZREM, so none is ever left over.
local AT_ONCE = 200

local DUE = {
  w = function(sid)
    local s = mh.session(sid)
    if s then mh.look(s) end
  end,
  f = function(sid)
    local s = mh.session(sid)
    if s and s.connected == 0 and call('HLEN', s.key .. ':t') == 0 then
      mh.watch_streams(s, true)
      mh.forget_session(s)
    end
  end,
  d = function(name) mh.promote(mh.queue(name)) end,
  x = function(subject)
    local n, name = string.match(subject, '^(%d+):(.*)$')
    mh.expire(mh.queue(name), n)
  end,
  p = function(member)
    local s, key = mh.who(member)
    local rec = s and mh.parked(s, key)
    if rec then mh.end_wait(s, rec) end
  end,
  c = function(name)
    local q = mh.queue(name)
    q.is_armed, q.is_changed = 0, true
    mh.ask(q)
  end,
  r = function(k) mh.drop_result(k) end,
  o = function(name) mh.orphan(name) end,
  k = function(id) call('HDEL', P .. ':known', id) end,
}

function mh.promote_due(q)
  local first = call('ZRANGE', q.key .. ':d', 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) <= now then mh.promote(q) end
end

-- Run what is due; when the next timer is (seconds from now), or -1.
function mh.run_timers()
  for _ = 1, AT_ONCE do
    local first = call('ZRANGE', P .. ':t', 0, 0, 'WITHSCORES')
    if not first[1] then return -1 end
    local due = tonumber(first[2])
    if due > now then return due - now end
    mh.never(first[1])
    DUE[sub(first[1], 1, 1)](sub(first[1], 3))
    mh.serve_dirty()
  end
  return 0
end
