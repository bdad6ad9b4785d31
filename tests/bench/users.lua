-- One request after another from many users in turn. Arguments: a file with the request, in which @USER@ stands for
-- the user's id, and the number of users. The last line printed is JSON.
local texts, turn = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local template = file:read("*a")
  file:close()
  for user = 1, tonumber(args[2]) do
    texts[user] = template:gsub("@USER@", string.format("%08x-0000-4000-8000-%012x", user * 2654435761 % 4294967296, user))
  end
end

function request()
  turn = turn % #texts + 1
  return texts[turn]
end

function done(summary, latency)
  local faults = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "bytes": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "faults": %d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    faults.connect + faults.read + faults.write + faults.status + faults.timeout))
end
