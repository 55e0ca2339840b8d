-- The load of the side-by-side comparison for wrk: ARGS are a file with a client address on each line, the
-- host, then the user agents. Prints one line that src/measure.rs reads.

local clients, agents, host, sent = {}, {}, nil, 0

function init(args)
  math.randomseed(20261120)
  for line in io.lines(args[1]) do clients[#clients + 1] = line end
  host = args[2]
  for n = 3, #args do agents[#agents + 1] = args[n] end
end

function request()
  sent = sent + 1
  local page = sent % 500
  return wrk.format("GET", "/p/" .. page .. "?q=" .. page, {
    ["Host"] = host,
    ["User-Agent"] = agents[sent % #agents + 1],
    ["X-Forwarded-For"] = clients[math.random(#clients)],
  })
end

function done(summary, latency)
  local broken = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, broken.status,
    broken.connect + broken.read + broken.write + broken.timeout, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
