-- What every other file stands on: the time, the numbers, how replies are written, what is saved at the end.
--
-- All files together are one library of Redis functions; one call is one atomic step (like `lifecycle.Core` behind its
-- shell). Its key is the prefix of every key, "manyhands:{space}": the hash tag keeps a space in one slot, so the same step
-- works in a cluster. The first argument says who calls and the limits; then come the operations, each a head and as many
-- bodies as the head says. What a file remembers within a step it begins anew in each (`mh.begins`).
--
-- Replies are written here in the bytes that msgspec reads on the other side (events.py), so nothing is translated. Redis'
-- cmsgpack knows no `bin`, so bodies never pass through it: they travel beside the heads and are joined to replies as bytes.

local mh = {on = {}, begins = {}}
-- The language's own libraries are there only once a function is called, not while the library is loaded.
local fmt, char, byte, sub, floor, min, max, ceil, call, pack, unp
local P, me, pulse_s, lease_s, resume_s, dedupe_s, kept_s, recall_after_s, recall_answer_s, orphan_s, now

-- The space's own numbers: tokens, message numbers and places in line only grow.
local G, G_was
local G_FIELDS = {'token', 'n', 'order', 'gen', 'last', 'opened', 'connected', 'shut', 'checked', 'stops', 'results_waited'}

-- Replies, in the order in which they must leave: {session, bytes}.
local effects

function mh.begin(prefix, caller)
  fmt, char, byte, sub = string.format, string.char, string.byte, string.sub
  floor, min, max, ceil = math.floor, math.min, math.max, math.ceil
  call, pack, unp = redis.call, cmsgpack.pack, cmsgpack.unpack
  P = prefix
  me, pulse_s, lease_s, resume_s, dedupe_s, kept_s, recall_after_s, recall_answer_s, orphan_s = unpack(unp(caller))
  local read = call('TIME')
  now = tonumber(read[1]) + tonumber(read[2]) / 1e6
  G, G_was, effects, mh.answer, mh.is_well = {}, {}, {}, nil, nil
  for i, value in ipairs(call('HMGET', P .. ':g', unpack(G_FIELDS))) do
    local number = tonumber(value or 0)
    G[G_FIELDS[i]], G_was[G_FIELDS[i]] = number, number
  end
  if G.opened == 0 then G.opened = now end
  for _, each in ipairs(mh.begins) do each() end
end

function mh.next(what)
  G[what] = G[what] + 1
  return G[what]
end

-- Store the numbers that are others than they were: writing one costs more than comparing ten.
function mh.save(key, is, was, fields)
  local all, n = {}, 0
  for _, field in ipairs(fields) do
    if is[field] ~= was[field] then
      all[n + 1], all[n + 2] = field, is[field]
      n = n + 2
    end
  end
  if n > 0 then call('HSET', key, unpack(all)) end
end

function mh.save_numbers() mh.save(P .. ':g', G, G_was, G_FIELDS) end

-- Writing msgpack by hand where a body is in it.
local function arr(n)
  if n < 16 then return char(0x90 + n) end
  if n < 65536 then return char(0xdc, floor(n / 256), n % 256) end
  return char(0xdd, floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end

local function bin(s)
  local n = #s
  if n < 256 then return char(0xc4, n) .. s end
  if n < 65536 then return char(0xc5, floor(n / 256), n % 256) .. s end
  return char(0xc6, floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256) .. s
end

-- Where the string or bin that begins at `at` has its content, and where the next value begins.
local function span(s, at)
  local b = byte(s, at)
  local from, n
  if b >= 0xa0 and b <= 0xbf then
    from, n = at + 1, b - 0xa0
  elseif b == 0xc4 or b == 0xd9 then
    from, n = at + 2, byte(s, at + 1)
  elseif b == 0xc5 or b == 0xda then
    from, n = at + 3, byte(s, at + 1) * 256 + byte(s, at + 2)
  else
    local b1, b2, b3, b4 = byte(s, at + 1, at + 4)
    from, n = at + 5, ((b1 * 256 + b2) * 256 + b3) * 256 + b4
  end
  return from, from + n
end

-- A message's id, kind, priority, due_at, max_deliveries and options, read from its bytes past the body.
function mh.headers(blob)
  local from, at = span(blob, 2)
  local id = sub(blob, from, at - 1)
  local _, after_body = span(blob, at)
  local _, after_seal = span(blob, after_body)
  return id, unp(sub(blob, after_seal))
end

function mh.reply(s, bytes)
  effects[#effects + 1] = {s, bytes}
end

function mh.done(s, rid)
  if rid ~= 0 then mh.reply(s, '\146' .. pack(64, rid)) end
end

function mh.fail(s, rid, code, text)
  if rid ~= 0 then mh.reply(s, '\148' .. pack(65, rid, code, text)) end
end

function mh.settled(s, rid, lost)
  if rid ~= 0 then mh.reply(s, '\147' .. pack(67, rid, lost)) end
end

function mh.count(s, rid, n)
  mh.reply(s, '\147' .. pack(68, rid, n))
end

-- Timers are one sorted set: "kind:subject" by when (UTC seconds of the server's clock). See timers.lua.
function mh.at(when, timer)
  call('ZADD', P .. ':t', when, timer)
end

function mh.at_soonest(when, timer)
  call('ZADD', P .. ':t', 'LT', when, timer)
end

function mh.never(timer)
  call('ZREM', P .. ':t', timer)
end
