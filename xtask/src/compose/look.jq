# What `docker inspect` says of each container, one line a value; what is empty or the same for all is left out.
def usual: {
  "HostConfig.ShmSize": 67108864, "HostConfig.IpcMode": "private",
  "HostConfig.LogConfig.Type": "json-file", "HostConfig.ConsoleSize.0": 0, "HostConfig.RestartPolicy.Name": "no"
};
def leave: ["Id", "Created", "Path", "Args", "State.Pid", "State.StartedAt", "State.FinishedAt", "ResolvConfPath", "HostnamePath",
  "HostsPath", "LogPath", "Driver", "GraphDriver", "HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths", "HostConfig.ConsoleSize",
  "HostConfig.CgroupnsMode", "HostConfig.Cgroup", "NetworkSettings.SandboxID", "NetworkSettings.SandboxKey", "Config.Image", "ImageManifestDescriptor", "AppArmorProfile",
  "NetworkSettings.Bridge", "Platform", "MountLabel", "ProcessLabel", "State.Health.Log", "ExecIDs", "HostConfig.Runtime", "HostConfig.UsernsMode", "Image", "Config.Labels",
  "NetworkSettings.MacAddress", "Mounts", "Config.Hostname", "Config.AttachStdout", "Config.AttachStderr", "State.Running",
  "NetworkSettings.IPAddress", "NetworkSettings.IPPrefixLen", "NetworkSettings.Gateway", "NetworkSettings.EndpointID",
  "NetworkSettings.GlobalIPv6Address", "NetworkSettings.GlobalIPv6PrefixLen", "NetworkSettings.IPv6Gateway"];
def name: map(tostring) | join(".");
def left_out: . as $path | any(range(1; length + 1); . as $n | $path[:$n] | name | IN(leave[]));
sort_by(.[0].Name)[] | .[0] |
# what Compose itself sends in no order
(.Config.Env, .HostConfig.Binds, .HostConfig.ExtraHosts, .NetworkSettings.Networks[].Aliases, .NetworkSettings.Networks[].DNSNames,
  .NetworkSettings.Networks[].Links) |= (. // [] | sort_by(sub("^[0-9a-f]{12}$"; ""))) |
.HostConfig.Ulimits |= (. // [] | sort_by(.Name)) |
.Config.Labels["com.docker.compose.depends_on"] |= (. // "" | split(",") | sort | join(",")) |
(.HostConfig.Mounts) |= (. // [] | sort_by(.Target)) |
. as $all |
(.Name[1:]) as $name |
($name + ": " + .State.Status),
([paths(scalars)] | sort_by(map(if type == "number" then 1000 + . else . end | tostring)) | .[] | select(left_out | not) | . as $path | name as $key | ($all | getpath($path)) as $value |
  select($value != null and $value != "" and $value != false and $value != 0 and $value != usual[$key]) |
  select($path[-1] | IN("EndpointID", "NetworkID", "MacAddress", "IPPrefixLen", "GlobalIPv6PrefixLen", "Gateway", "IPv6Gateway", "GlobalIPv6Address") | not) |
  select($value != "label=disable") |
  select($key != "Name" and $key != "State.Status") |
  "  " + $key + " = " + ($value | tostring)),
(.Config.Labels | to_entries | sort_by(.key)[] | select(.key | test("compose.(project|version|image|oneoff|container-number|service|config-hash)") | not) |
  "  label " + .key + "=" + .value),
(.Mounts | sort_by(.Destination)[] | "  mount " + ([.Type, .Name // .Source, .Destination, .Mode, (if .RW then "rw" else "ro" end), .Propagation] | map(. // "") | join(" ")))
