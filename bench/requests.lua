-- For wrk: asks for what the file named by its argument lists, over and over, in order.
-- Each line: path, tab, Authorization (may be empty), tab, Range (may be empty).

local requests = {}
local position = 0

function init(args)
  for line in io.lines(args[1]) do
    local path, authorization, range = line:match("^([^\t]*)\t([^\t]*)\t(.*)$")
    wrk.headers["Accept"] = "application/vnd.oci.image.manifest.v1+json"
    wrk.headers["Authorization"] = authorization ~= "" and authorization or nil
    wrk.headers["Range"] = range ~= "" and range or nil
    wrk.path = path
    requests[#requests + 1] = wrk.format()
  end
  -- A single request is left to wrk itself, which then runs no Lua for each.
  if #requests > 1 then
    request = function()
      position = position % #requests + 1
      return requests[position]
    end
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
