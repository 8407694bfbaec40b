-- One step: apply the operations in order, serve who waits, run what is due, save what changed, let the replies go.
--
-- An operation is {how many bodies follow, session or '', its gen, {what, …}}. The answer is {replies to sessions of this
-- client, seconds to the next timer, this client's turn among the sweepers, whether it is known and hears its channel, what `attach`
-- answered, sessions that are not attached by this gen any more…}.
local TURNS = 32

local function step(keys, args)
  mh.begin(keys[1], args[1])
  local stale, at = {}, 2
  if G.last > 0 and now - G.last > 2.5 * pulse_s then mh.credit() end
  G.last = now

  while args[at] do
    local op = unp(args[at])
    local bodies = {}
    for i = 1, op[1] do bodies[i] = args[at + i] end
    at = at + 1 + op[1]
    local s, r = nil, op[4]
    if op[2] ~= '' then
      s = mh.session(op[2])
      if not s or s.connected == 0 or s.gen ~= op[3] then
        -- "!" before it: another connection has it now.
        stale[#stale + 1] = (s and s.connected == 1 and '!' or ' ') .. op[2]
        r = nil
      end
    end
    if r then
      if s then mh.heard(s) end
      mh.on[r[1]](s, r, bodies)
      mh.serve_dirty()
    end
  end

  local next_due = mh.run_timers()
  mh.save_queues()
  mh.save_sessions()
  mh.save_marks()
  mh.save_numbers()

  local mine, others = {}, {}
  for _, effect in ipairs(effects) do
    local s = effect[1]
    local to = s.client == me and mine or others[s.client]
    if not to then
      to = {}
      others[s.client] = to
    end
    to[#to + 1] = '\147' .. pack(s.id, s.gen) .. effect[2]
  end
  for client, replies in pairs(others) do
    call('SPUBLISH', mh.channel(client), arr(#replies) .. table.concat(replies))
  end
  -- Only a pulse asks whose turn it is, and whether the client is well.
  local turn = mh.is_well ~= nil and call('ZRANK', P .. ':clients', me)
  return {
    arr(#mine) .. table.concat(mine), fmt('%.6f', next_due), turn and turn < TURNS and turn or -1,
    mh.is_well == false and 0 or 1, mh.answer or '',
    unpack(stale),
  }
end

redis.register_function('NAME_step', step)
-- For steps that put nothing: they must go on when memory is short, since they are what frees it.
redis.register_function{function_name = 'NAME_relief', callback = step, flags = {'allow-oom'}}
